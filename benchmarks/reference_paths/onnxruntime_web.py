"""ONNX Runtime's documented road: torch's exporter, ``quantize_static``.

ONNX Runtime documentation, "Quantize ONNX models": pre-processing, QDQ, per channel, uint8 activations, int8 weights; "Deploy a
web app": the same file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

__all__ = ["ENTRY", "write"]

ENTRY = "model.onnx"


def write(module: Any, calibration: torch.Tensor, precision: str, folder: Path) -> None:
    """``module`` for a batch of one, as ``model.onnx``; int8 is calibrated on ``calibration`` [N, …]."""
    example = (calibration[:1],)
    exported = folder / "float.onnx"
    torch.onnx.export(module, example, exported, dynamo=True, external_data=False, verbose=False, input_names=["x"])
    if precision == "fp32":
        exported.rename(folder / ENTRY)
        return

    class Samples(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rest = iter(calibration.numpy())

        def get_next(self) -> dict[str, Any] | None:
            sample = next(self.rest, None)
            return None if sample is None else {"x": sample[None]}

    ready = folder / "ready.onnx"
    quant_pre_process(exported, ready)
    quantize_static(
        ready,
        folder / ENTRY,
        Samples(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    for leftover in (exported, ready):
        leftover.unlink()
