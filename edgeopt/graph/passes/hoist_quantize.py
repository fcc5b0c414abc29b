"""Quantize before moving data, not after: Q(Move(x)) becomes Move(DQ(Q(x))) with the Q/DQ behind it kept.

ONNX Runtime runs a convolution in int8 only if a QuantizeLinear follows it (a Relu may stand between). In
conv → relu → max-pool → Q the pool is in the way. Max-pooling, reshaping, transposing, slicing and concatenating only
select values, and rounding is monotone, so quantizing first gives the same values exactly; and quantizing again, on the
same grid, what is on the grid already changes nothing.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgeopt.graph.qdq import Point, activation_points, array_of

__all__ = ["MOVES", "HoistQuantize"]

MOVES = frozenset({"MaxPool", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Concat"})


class HoistQuantize(ir.passes.InPlacePass):
    """Add a Q/DQ pair in front of data movement that is followed by Q; the graph's values stay the same."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Walk from every point up through data movement; a copy is made for each value that has no point yet."""
        modified = False
        pending = activation_points(model.graph)
        while pending:
            point = pending.pop()
            pending_new = _hoist(model.graph, point)
            modified = modified or bool(pending_new)
            pending.extend(pending_new)
        return ir.passes.PassResult(model, modified)


def _hoist(graph: ir.Graph, point: Point) -> list[Point]:
    move = point.tensor.producer()
    # another reader would see rounded values where it saw exact ones
    if move is None or move.op_type not in MOVES or not _only_reader(point.tensor, point):
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
