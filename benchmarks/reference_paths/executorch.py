"""ExecuTorch's documented road: its XNNPACK quantizer, PT2E, the XNNPACK partitioner.

ExecuTorch documentation, "XNNPACK Backend" and "Quantization" (1.5).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config
from executorch.exir import to_edge_transform_and_lower
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

__all__ = ["ENTRY", "write"]

ENTRY = "model.pte"


def write(module: Any, calibration: torch.Tensor, precision: str, folder: Path) -> None:
    """``module`` for a batch of one, as ``model.pte``; int8 is calibrated on ``calibration`` [N, …]."""
    example = (calibration[:1],)
    if precision == "int8":
        quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
        prepared = prepare_pt2e(torch.export.export(module, example).module(), quantizer)
        for sample in calibration:
            prepared(sample[None])
        module = convert_pt2e(prepared)
    program = torch.export.export(module, example)
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
    (folder / ENTRY).write_bytes(lowered.buffer)
