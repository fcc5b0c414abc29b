"""Quantize before moving data, not after: Q(Move(x)) becomes Move(DQ(Q(x))) with the Q/DQ behind it kept.

ONNX Runtime runs a convolution in int8 only if a QuantizeLinear follows it (a Relu may stand between). In
conv → relu → max-pool → Q the pool is in the way. Max-pooling, reshaping, transposing, slicing and concatenating only
select values, and rounding is monotone, so quantizing first gives the same values exactly; and quantizing again, on the
same grid, what is on the grid already changes nothing.

Padding that is not folded into a convolution (one in front of a max-pool, say) moves integers instead: Q(Pad(x, 0))
becomes Pad(Q(x), zero point). ONNX Runtime drops the pairs around the other moves by itself and keeps those around Pad.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir

from edgeopt.graph.passes.fold_pad import is_zero_pad
from edgeopt.graph.qdq import Point, activation_points, add_initializer, array_of

__all__ = ["MOVES", "HoistQuantize", "is_moving_pad"]

MOVES = frozenset({"MaxPool", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Concat"})


class HoistQuantize(ir.passes.InPlacePass):
    """Add a Q/DQ pair in front of data movement that is followed by Q; the graph's values stay the same.

    Args:
        over: Nothing is done where none of these lies on the way; for runtimes that move Q/DQ over the others themselves.
    """

    def __init__(self, over: frozenset[str] = MOVES | {"Pad"}) -> None:
        super().__init__()
        self.over = over

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Walk from every point up through data movement; a copy is made for each value that has no point yet."""
        modified = False
        pending = [point for point in activation_points(model.graph) if self._is_asked(point.tensor)]
        while pending:
            point = pending.pop()
            pending_new = _hoist(model.graph, point)
            modified = modified or bool(pending_new)
            pending.extend(pending_new)
        return ir.passes.PassResult(model, modified)

    def _is_asked(self, value: ir.Value | None) -> bool:
        pending, seen = [value], set()
        while pending:
            current = pending.pop()
            node = current.producer() if current is not None else None
            if node is None or node in seen or not (node.op_type in MOVES or is_moving_pad(node)):
                continue
            if node.op_type in self.over:
                return True
            seen.add(node)
            pending.extend(node.inputs)
        return False


def is_moving_pad(node: ir.Node) -> bool:
    """Whether a node is a Pad that adds nothing but zeros and values that are there already."""
    return node.op_type == "Pad" and (node.attributes.get_string("mode", "constant") != "constant" or is_zero_pad(node))


def _hoist(graph: ir.Graph, point: Point) -> list[Point]:
    move = point.tensor.producer()
    # another reader would see rounded values where it saw exact ones
    if move is None or not _only_reader(point.tensor, point):
        return []
    if is_moving_pad(move):
        return _hoist_above_pad(graph, point, move)
    if move.op_type not in MOVES:
        return []
    if move.op_type == "MaxPool" and len(move.outputs) > 1:
        return []
    made = []
    sources = range(len(move.inputs)) if move.op_type == "Concat" else range(1)
    if any(_source(move, index) is None for index in sources):
        return []
    for index in sources:
        value = _source(move, index)
        producer = value.producer() if value is not None else None
        if value is None or producer is None or producer.op_type == "DequantizeLinear":
            continue
        made.append(_insert(graph, point, move, index, value))
    return made


def _hoist_above_pad(graph: ir.Graph, point: Point, pad: ir.Node) -> list[Point]:
    value = _source(pad, 0)
    producer = value.producer() if value is not None else None
    quantizers = point.tensor.consumers()
    is_seen = any(node.outputs[0].is_graph_output() for node in quantizers)
    if value is None or producer is None or producer.op_type == "DequantizeLinear" or is_seen:
        return []
    grid, kept = point.quantize.inputs[1:], point.quantize.outputs[0]
    name = f"{value.name}_{kept.name}"
    quantize = ir.node("QuantizeLinear", inputs=[value, *grid], num_outputs=1, name=f"{name}_quantize")
    quantize.metadata_props.update(point.quantize.metadata_props)
    quantized = quantize.outputs[0]
    quantized.name, quantized.shape, quantized.type = f"{name}_q", value.shape, kept.type
    zero = array_of(grid[1]) if len(grid) > 1 else None
    is_filled = zero is not None and is_zero_pad(pad)  # other modes add nothing of their own
    filler = add_initializer(graph, f"{kept.name}_filler", zero.reshape(())) if is_filled else None  # type: ignore[union-attr]
    inputs = [quantized, pad.inputs[1], filler, *pad.inputs[3:]]
    while inputs[-1] is None:
        inputs.pop()
    padded = ir.node("Pad", inputs, pad.attributes, num_outputs=1, name=f"{name}_pad")
    graph.insert_before(pad, [quantize, padded])
    for node in quantizers:
        node.outputs[0].replace_all_uses_with(padded.outputs[0])
    graph.remove([*quantizers, pad], safe=True)
    padded.outputs[0].name, padded.outputs[0].shape, padded.outputs[0].type = kept.name, kept.shape, kept.type
    return [dataclasses.replace(point, quantize=quantize)]


def _source(move: ir.Node, index: int) -> ir.Value | None:
    value = move.inputs[index]
    return None if value is None or array_of(value) is not None else value


def _only_reader(value: ir.Value, point: Point) -> bool:
    readers = value.consumers()
    if value.is_graph_output():
        return False
    return all(reader is point.quantize or _same_grid(reader, point) for reader in readers)


def _same_grid(reader: ir.Node, point: Point) -> bool:
    return reader.op_type == "QuantizeLinear" and all(
        _equal(mine, theirs) for mine, theirs in zip(point.quantize.inputs[1:], reader.inputs[1:], strict=False)
    )


def _equal(one: ir.Value | None, other: ir.Value | None) -> bool:
    first, second = array_of(one), array_of(other)
    return first is not None and second is not None and first.dtype == second.dtype and np.array_equal(first, second)


def _insert(graph: ir.Graph, point: Point, move: ir.Node, index: int, value: ir.Value) -> Point:
    name = f"{value.name}_{point.quantize.outputs[0].name}"
    quantize = ir.node(
        "QuantizeLinear", inputs=[value, *point.quantize.inputs[1:]], num_outputs=1, name=f"{name}_quantize"
    )
    quantized = quantize.outputs[0]
    quantized.name, quantized.shape, quantized.type = f"{name}_q", value.shape, point.quantize.outputs[0].type
    dequantize = ir.node(
        "DequantizeLinear", inputs=[quantized, *point.quantize.inputs[1:]], num_outputs=1, name=f"{name}_dequantize"
    )
    result = dequantize.outputs[0]
    result.name, result.shape, result.type = f"{name}_dq", value.shape, value.type
    quantize.metadata_props.update(point.quantize.metadata_props)
    graph.insert_before(move, [quantize, dequantize])
    move.replace_input_with(index, result)
    return Point(
        quantize=quantize,
        dequantize=(dequantize,),
        scale=point.scale,
        zero_point=point.zero_point,
        dtype=point.dtype,
        low=point.low,
        high=point.high,
    )
