"""Take away the grid between a convolution and the residual addition that alone reads it.

ONNX Runtime needs both inputs of an Add on grids. OpenVINO computes the addition and both roundings inside the convolution;
where that runs on AMX tiles, the rounding before the addition costs more than a pass of its own over a small tensor: a
ResNet-20 took 0.87 of the time without, four residual blocks of 64 channels on 28 × 28 0.77. A large tensor, and one that
a pointwise convolution writes, is bound by memory, and float takes four times as much of it: 1.04 to 1.5. Kernels for VNNI
take 1.00 to 1.04 of the time without (one thread, OpenVINO 2026.4.1). The sum sees the convolution unrounded.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from edgeopt.graph.qdq import Point, activation_points

__all__ = ["DropBranchPoints"]

_LARGEST = 2**17
"""Values of one sample: 64 channels on 28 × 28 (2^15.6) took 0.77, 128 on 28 × 28 (2^16.6) 0.96, 64 on 56 × 56 (2^17.6) 1.06."""


class DropBranchPoints(ir.passes.InPlacePass):
    """Add(DQ(Q(Conv(x))), DQ(y)) becomes Add(Conv(x), DQ(y)), where nothing else reads the quantized tensor."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Remove every such pair behind a convolution over neighbours that writes a small tensor."""
        modified = False
        for point in activation_points(model.graph):
            if not _is_small(point.tensor) or not _joins(point):
                continue
            (node,) = point.dequantize
            node.outputs[0].replace_all_uses_with(point.tensor)
            model.graph.remove([node, point.quantize], safe=True)
            modified = True
        return ir.passes.PassResult(model, modified)


def _is_small(value: ir.Value) -> bool:
    layer = value.producer()
    if layer is None or layer.op_type != "Conv" or len(value.consumers()) != 1 or value.is_graph_output():
        return False
    weight = layer.inputs[1]
    if weight is None or weight.shape is None or value.shape is None:
        return False
    # The batch does not count.
    kernel, sizes = ([size for size in shape if isinstance(size, int)] for shape in (weight.shape[2:], value.shape[1:]))
    if len(kernel) != len(weight.shape) - 2 or len(sizes) != len(value.shape) - 1:
        return False
    return math.prod(kernel) > 1 and math.prod(sizes) <= _LARGEST


def _joins(point: Point) -> bool:
    """Whether one Add alone reads it, beside a tensor that is on a grid and stays there."""
    if len(point.dequantize) != 1 or point.dequantize[0].outputs[0].is_graph_output():
        return False
    given = point.dequantize[0].outputs[0]
    readers = list(given.consumers())
    if [reader.op_type for reader in readers] != ["Add"]:
        return False
    others = [value for value in readers[0].inputs if value is not given]
    producers = [value.producer() for value in others if value is not None]
    return len(producers) == 1 and producers[0] is not None and producers[0].op_type == "DequantizeLinear"
