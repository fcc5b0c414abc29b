"""The layers that read the model's input run in float, on int8 weights.

A first convolution has one to three channels: an int8 kernel copies its windows into a matrix or multiplies zeros, and the
input is quantized for it alone. In a MobileNetV2 on 28 × 28 it took 22 of 163 µs in int8 and 7 of 271 in float. A 1-D CNN of 13
channels is slower so, as what follows has to be quantized instead. Which it is, only the device tells.

Grids between operations that are all float then have no reader left that needs them, and go: the rounding is left out. So does
that of a small last layer whose input a float operation makes, a GRU's mean say: its int8 kernel wins less than quantizing costs.
"""

from __future__ import annotations

import onnx_ir as ir

from edgeopt.graph.passes.cast_weights import CastWeights
from edgeopt.graph.passes.float_readers import RECURRENT, feeds_float
from edgeopt.graph.passes.hoist_quantize import MOVES
from edgeopt.graph.qdq import Point, activation_points, array_of

__all__ = ["FloatStem"]

_FEW = 2**12  # weights
_PASSED = MOVES | {"Relu", "Clip", "Pad"}


class FloatStem(ir.passes.InPlacePass):
    """Conv(DQ(Q(input)), DQ(W)) becomes Conv(input, Mul(Cast(W), scale)); weights stay int8 on disk.

    Where anything else reads the quantized input, it stays as it is. Runs before ``QuantizeBias``: beside a float input ONNX
    Runtime leaves float weights alone, and a float bias costs it nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.changed: list[ir.Node] = []
        """The layers that are float now, in order."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite every such layer, and drop the grids around it that float operations alone are left on both sides of."""
        points = activation_points(model.graph)
        stems = {reader for p in points if p.tensor.is_graph_input() and _is_stem(p) for reader in _reads(p)}
        ends = {
            reader for p in points if stems and _is_float(p.tensor) for reader in _reads(p) if _is_small_end(reader)
        }
        cast = CastWeights(lambda node, _: node in stems | ends, integer_bias=False)
        cast(model)
        self.changed = cast.changed
        done = set(cast.changed)
        for point in activation_points(model.graph):
            if _is_idle(point, done):
                for node in point.dequantize:
                    node.outputs[0].replace_all_uses_with(point.tensor)
                model.graph.remove([*point.dequantize, point.quantize], safe=True)
        return ir.passes.PassResult(model, modified=bool(done))


def _is_stem(point: Point) -> bool:
    """Whether convolutions alone read it, and each its weight through DequantizeLinear."""
    return all(reader.op_type == "Conv" and reader.inputs[0] in _values(point) for reader in _reads(point))


def _values(point: Point) -> list[ir.Value]:
    return [node.outputs[0] for node in point.dequantize]


def _reads(point: Point) -> list[ir.Node]:
    return [reader for value in _values(point) for reader in value.consumers()]


def _is_idle(point: Point, stems: set[ir.Node]) -> bool:
    """Whether a stem is on one side of it, and float operations alone are on the other."""
    if any(value.is_graph_output() for value in _values(point)):
        return False
    if point.tensor.is_graph_input() or _is_float(point.tensor):
        return bool(_reads(point)) and stems.issuperset(_reads(point))
    return _maker(point.tensor) in stems and feeds_float(point)


def _is_small_end(node: ir.Node) -> bool:
    """Whether it is a linear layer of few products that makes what the model returns."""
    weight = node.inputs[1].producer() if node.op_type == "Gemm" and node.inputs[1] is not None else None
    stored = None if weight is None else array_of(weight.inputs[0])
    return stored is not None and stored.size <= _FEW and node.outputs[0].is_graph_output()


def _is_float(value: ir.Value) -> bool:
    """Whether a recurrent cell made it, through a mean and moves at most."""
    node = value.producer()
    while node is not None and (node.op_type in MOVES or node.op_type == "ReduceMean"):
        node = node.inputs[0].producer() if node.inputs[0] is not None else None
    return node is not None and node.op_type in RECURRENT


def _maker(value: ir.Value) -> ir.Node | None:
    """The layer that made it, past activation functions and moves."""
    node = value.producer()
    while node is not None and node.op_type in _PASSED:
        node = node.inputs[0].producer() if node.inputs[0] is not None else None
    return node
