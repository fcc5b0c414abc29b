"""What the quantized nets are to reach, as data: the wanted limit of each net, kind of recipe and runtime."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

__all__ = ["Wanted", "kind_of", "wanted"]

Kind = Literal["float", "ptq", "qat", "w4", "w4-qat", "auto"]
_NO_SLOWER = {"onnxruntime": 1.0, "openvino": 1.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Limits of one net under one kind of recipe; None (or a runtime left out): nothing is wanted.

    Attributes:
        drop_pp: At most, percentage points against FP32 on the same runtime and samples.
        agreement_pct: At least, predictions equal to FP32's.
        sqnr_db: At least, of the logits on the test split.
        latency_ratio: At most, p50 against FP32, by runtime.
        on_faster: The latency's limit holds on the runtime whose int8 is the faster one only.
        size_ratio: At most, the engine's files against FP32's.
    """

    drop_pp: float | None = None
    agreement_pct: float | None = None
    sqnr_db: float | None = None
    latency_ratio: dict[str, float] = field(default_factory=dict)
    on_faster: bool = False
    size_ratio: float | None = None


_RESNET20 = {"onnxruntime": 0.66, "openvino": 0.55}
_MOBILENETV2 = {"onnxruntime": 0.60, "openvino": 0.65}
_LITE0 = {"onnxruntime": 0.45, "openvino": 0.45}

_WANTED: dict[tuple[str, Kind], Wanted] = {
    ("resnet20", "ptq"): Wanted(drop_pp=0.3, sqnr_db=35, latency_ratio=_RESNET20),
    ("resnet20", "qat"): Wanted(drop_pp=0.1, latency_ratio=_RESNET20),
    ("resnet20", "w4"): Wanted(size_ratio=0.16),
    ("resnet20", "w4-qat"): Wanted(drop_pp=1.0, size_ratio=0.16),
    ("mobilenetv2", "ptq"): Wanted(drop_pp=0.5, latency_ratio=_MOBILENETV2),
    ("mobilenetv2", "qat"): Wanted(drop_pp=0.2, latency_ratio=_MOBILENETV2),
    ("lite0", "ptq"): Wanted(agreement_pct=98, sqnr_db=25, latency_ratio=_LITE0),
    ("prelu", "ptq"): Wanted(drop_pp=0.5, agreement_pct=98, latency_ratio=_NO_SLOWER, on_faster=True),
    ("longconv", "ptq"): Wanted(drop_pp=0.5, agreement_pct=98, latency_ratio=_NO_SLOWER, on_faster=True),
    ("vit", "ptq"): Wanted(drop_pp=0.5, sqnr_db=35, latency_ratio=_NO_SLOWER),
    ("vit", "qat"): Wanted(drop_pp=0.3, latency_ratio=_NO_SLOWER),
    ("cnn1d", "ptq"): Wanted(drop_pp=0.5, latency_ratio=_NO_SLOWER),
    ("cnn1d", "qat"): Wanted(drop_pp=0.3, latency_ratio=_NO_SLOWER),
    ("gru", "ptq"): Wanted(drop_pp=0.5, latency_ratio=_NO_SLOWER),
    ("gru", "qat"): Wanted(drop_pp=0.3, latency_ratio=_NO_SLOWER),
}
_AUTO = Wanted(drop_pp=1.0, latency_ratio=_NO_SLOWER)  # what the recipe itself promises, on every net


def kind_of(recipe: str) -> Kind:
    """Which limits a recipe's name puts it under."""
    if "auto" in recipe:
        return "auto"
    if "w4" in recipe or "int4" in recipe:
        return "w4-qat" if "qat" in recipe else "w4"
    if "qat" in recipe:
        return "qat"
    return "ptq" if "int8" in recipe or "ptq" in recipe else "float"


def wanted(net: str, recipe: str) -> Wanted:
    """The limits of ``net`` under ``recipe``: none where the table has none."""
    kind = kind_of(recipe)
    return _AUTO if kind == "auto" else _WANTED.get((net, kind), Wanted())
