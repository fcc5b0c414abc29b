"""LiteRT's documented road: litert-torch with its PT2E quantizer.

LiteRT documentation, "Convert PyTorch models", section "Quantization" (litert-torch 0.10).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import litert_torch
import torch
from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
from litert_torch.quantize.quant_config import QuantConfig
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

__all__ = ["ENTRY", "write"]

ENTRY = "model.tflite"


def write(module: Any, calibration: torch.Tensor, precision: str, folder: Path) -> None:
    """``module`` for a batch of one, as ``model.tflite``; int8 is calibrated on ``calibration`` [N, …]."""
    example = (calibration[:1],)
    if precision == "fp32":
        made = litert_torch.convert(module, example)
    else:
        quantizer = PT2EQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True, is_dynamic=False))
        prepared = prepare_pt2e(torch.export.export(module, example).module(), quantizer)
        for sample in calibration:
            prepared(sample[None])
        converted = convert_pt2e(prepared, fold_quantize=False)
        made = litert_torch.convert(converted, example, quant_config=QuantConfig(pt2e_quantizer=quantizer))
    made.export(str(folder / ENTRY))
