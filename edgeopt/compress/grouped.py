"""Weights stored as integers with one scale per group of inputs, for layers that compute in float.

A group is ``group_size`` consecutive weights of one output channel. In the graph the weight is a matrix with one group
per row, which ONNX's DequantizeLinear has had since opset 13 (one scale per row), behind a reshape; a dialect writes it
in its runtime's own blocked form.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e import ObserverBase

from edgeopt.compress.attributes import attribute, constant
from edgeopt.compress.ranges import SCALE_FLOOR

__all__ = ["GroupedWeightObserver", "group_scales", "quantize_groups"]

_Q = torch.ops.quantized_decomposed


class GroupedWeightObserver(ObserverBase):  # type: ignore[misc]
    """Stands at the weight of a linear layer; at conversion it is stored as int8 on grids of one per group.

    Attributes:
        stored: int8 [N, K] and float32 [N, K / group_size], where something better than the nearest points was found.
    """

    def __init__(self, *, bits: int, group_size: int, dtype: torch.dtype = torch.int8, **_: Any) -> None:
        super().__init__(dtype=dtype, is_dynamic=False)
        self.qscheme, self.ch_axis, self.group_size = torch.per_channel_symmetric, 0, group_size
        self.quant_max = 2 ** (bits - 1) - 1
        self.quant_min = -self.quant_max
        self.stored: tuple[torch.Tensor, torch.Tensor] | None = None

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight, unchanged: it is read once, at conversion."""
        return weight

    def grid(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The integers and the scales that ``weight`` is stored as."""
        return self.stored or quantize_groups(weight, self.group_size, self.quant_max)

    def restored(self, weight: torch.Tensor) -> torch.Tensor:
        """What ``weight`` is once it was stored: float32 [N, K]."""
        values, scales = self.grid(weight)
        return values * scales.repeat_interleave(self.group_size, dim=1)

    def calculate_qparams(self, **_: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Not used: ``convert`` writes the nodes."""
        raise NotImplementedError

    def convert(self, model: GraphModule, observed: Node) -> None:
        """Store the weight and dequantize it in the graph; called by torchao's ``convert_pt2e``."""
        source = observed.args[0]
        if not isinstance(source, Node) or source.op != "get_attr":
            raise TypeError(f"a quantized weight must be a constant, not {source!r}")
        weight = attribute(model, str(source.target))
        values, scales = self.grid(weight)
        name = str(source.target).replace(".", "_")
        graph = model.graph
        with graph.inserting_before(observed):
            rows = constant(model, f"{name}_int8", values.reshape(-1, self.group_size))
            steps = constant(model, f"{name}_scale", scales.reshape(-1))
            zeros = constant(model, f"{name}_zero_point", torch.zeros(scales.numel(), dtype=torch.int64))
            arguments = (steps, zeros, 0, self.quant_min, self.quant_max, torch.int8)
            restored = graph.call_function(_Q.dequantize_per_channel.default, (rows, *arguments))
            whole = graph.call_function(torch.ops.aten.reshape.default, (restored, list(weight.shape)))
        observed.replace_all_uses_with(whole)
        graph.erase_node(observed)
        if not source.users:
            graph.erase_node(source)


def group_scales(weight: torch.Tensor, group_size: int, quant_max: int) -> torch.Tensor:
    """The step of each group's grid: max|w| / quant_max, float32 [N, K / group_size]; ``weight``: [N, K]."""
    largest = weight.detach().double().reshape(len(weight), -1, group_size).abs().amax(2)
    return (largest / quant_max).float().clamp_min(SCALE_FLOOR)


def quantize_groups(weight: torch.Tensor, group_size: int, quant_max: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Round each weight to the nearest point of its group's grid.

    Args:
        weight: float32 [N, K]; K is a multiple of ``group_size``.
        group_size: Weights per scale.
        quant_max: The grid's largest integer; the smallest is its negative.

    Returns:
        int8 [N, K]; scales float32 [N, K / group_size].
    """
    scales = group_scales(weight, group_size, quant_max)
    steps = scales.double().repeat_interleave(group_size, dim=1)
    values = (weight.detach().double() / steps).round().clamp(-quant_max, quant_max)
    return values.to(torch.int8), scales
