"""How far one stage's outputs are from another's, and where they part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from edgeopt.bundle.document import ParityRow
from edgeopt.core.errors import GraphError
from edgeopt.core.measurement import Measurement, not_measured
from edgeopt.graph.differences import RunOnnx, first_difference, first_difference_onnx
from edgeopt.graph.layers import layer_sqnr
from edgeopt.recipes.schema import ParityLimits

__all__ = ["RunOnnx", "compare", "first_difference", "first_difference_onnx", "layer_sqnr", "sqnr_db"]


def compare(
    reference: Sequence[np.ndarray],
    outputs: Sequence[np.ndarray],
    *,
    stage: str,
    against: str,
    kind: Literal["float", "int8"],
    limits: ParityLimits,
    classification: bool,
) -> ParityRow:
    """Compare a stage's outputs with the reference's on the same inputs.

    Args:
        reference: One array [N, …] per output; ``outputs`` likewise.
        stage: The stage judged, and ``against`` the one it is compared with, as the report names them.
        kind: Which limits hold. ``float``: |difference| relative to max(1, largest |reference|), and the cosine.
            ``int8``: SQNR, and for a classifier the share of equal predictions.
        classification: Whether the first output is [N, classes].

    Returns:
        The row, whose figures are of the worst output: ``max_abs``, ``cosine``, ``sqnr_db`` and ``top1_agreement_pct``.

    Raises:
        GraphError: The two have other shapes, there is nothing to compare, or an array holds NaN or infinity.
    """
    pairs = list(_pairs(reference, outputs, stage, against))
    count = len(pairs[0][0]) if pairs[0][0].ndim else 1
    max_abs = max(float(np.abs(a - b).max()) for a, b in pairs)
    relative = max(float(np.abs(a - b).max()) / max(1.0, float(np.abs(a).max())) for a, b in pairs)
    cosine = min(_cosine(a, b) for a, b in pairs)
    levels = [level for level in (sqnr_db(a, b) for a, b in pairs) if level is not None]
    top1 = _top1(*pairs[0], stage) if classification else None
    figures = [
        Measurement(name="max_abs", value=max_abs, unit="1", n=count),
        Measurement(name="cosine", value=cosine, unit="1", n=count),
        Measurement(name="sqnr_db", value=min(levels), unit="dB", n=count)
        if levels
        else not_measured("sqnr_db", "dB", "identical"),
        Measurement(name="top1_agreement_pct", value=100 * top1, unit="%", n=count)
        if top1 is not None
        else not_measured("top1_agreement_pct", "%", "not a classifier"),
    ]
    if kind == "float":
        passed = relative <= limits.float_max_abs and cosine >= limits.float_cosine
        tolerance = (
            f"largest difference at most {limits.float_max_abs:g} of max(1, largest output), "
            f"cosine at least {limits.float_cosine:g}"
        )
    else:
        passed = min(levels, default=np.inf) >= limits.int8_sqnr_db
        tolerance = f"SQNR at least {limits.int8_sqnr_db:g} dB"
        if top1 is not None:
            passed = passed and top1 >= limits.int8_top1_agreement
            tolerance += f", equal predictions on at least {100 * limits.int8_top1_agreement:g} %"
    return ParityRow(stage=stage, against=against, figures=tuple(figures), tolerance=tolerance, passed=bool(passed))


def sqnr_db(reference: np.ndarray, output: np.ndarray) -> float | None:
    """10·log₁₀(Σ reference² / Σ (reference − output)²), or None where the two are identical.

    A reference of zeros has no signal: a floor of 10⁻³⁰⁰ keeps the figure finite, and far below any limit.
    """
    signal, noise = _power(reference), _power(reference.astype(np.float64) - output.astype(np.float64))
    if noise == 0:
        return None
    return float(10 * (np.log10(max(signal, 1e-300)) - np.log10(max(noise, 1e-300))))


def _pairs(
    reference: Sequence[np.ndarray], outputs: Sequence[np.ndarray], stage: str, against: str
) -> list[tuple[np.ndarray, np.ndarray]]:
    if len(reference) != len(outputs) or not reference:
        raise GraphError(f"{stage} cannot be compared with {against}: {len(reference)} outputs.", got=len(outputs))
    pairs = []
    for index, (expected, actual) in enumerate(zip(reference, outputs, strict=True)):
        if expected.shape != actual.shape or not expected.size:
            raise GraphError(
                f"Output {index} of {stage} has another shape than {against}'s, or no elements.",
                got=f"{actual.shape}; expected {expected.shape}",
            )
        for name, array in ((against, expected), (stage, actual)):
            bad = int((~np.isfinite(array)).sum())
            if bad:
                raise GraphError(
                    f"Output {index} of {name} holds NaN or infinity.",
                    got=f"{bad} of {array.size} elements",
                    fix="Check the model's weights and that the inputs are scaled as in training.",
                )
        pairs.append((expected.astype(np.float64), actual.astype(np.float64)))
    return pairs


def _power(array: np.ndarray) -> float:
    return float(np.square(array.astype(np.float64)).sum())


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    if np.array_equal(a, b):
        return 1.0
    norm = np.sqrt(_power(a)) * np.sqrt(_power(b))
    return float(min(1.0, (a * b).sum() / norm)) if norm > 0 else 0.0


def _top1(reference: np.ndarray, output: np.ndarray, stage: str) -> float:
    if reference.ndim != 2:
        raise GraphError(
            f"The first output of {stage} is not [samples, classes].", got=reference.shape, fix="Is it a classifier?"
        )
    return float((reference.argmax(1) == output.argmax(1)).mean())
