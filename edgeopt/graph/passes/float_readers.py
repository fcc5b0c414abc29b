"""Whether what reads a quantized tensor computes in float anyway, so that its grid only costs accuracy and two operations."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from edgeopt.graph.passes.hoist_quantize import MOVES
from edgeopt.graph.qdq import Point

__all__ = ["RECURRENT", "feeds_float", "is_dequantized"]

RECURRENT = frozenset({"GRU", "LSTM", "RNN"})

_FLOAT = (
    frozenset({"LayerNormalization", "RMSNormalization", "InstanceNormalization", "GroupNormalization"})
    | RECURRENT
    | {"Softmax"}
)
_JOINS = frozenset({"Add", "Sub", "Mul", "Div"})


def feeds_float(point: Point) -> bool:
    """Whether every reader, past what only moves data, is a normalization, a recurrent cell, or arithmetic on a float operand.

    A tensor that the graph returns, or that nothing reads, feeds none.
    """
    readers = list(_beyond([node.outputs[0] for node in point.dequantize]))
    return bool(readers) and all(reader is not None and _is_float(reader) for reader in readers)


def _beyond(values: list[ir.Value]) -> Iterator[ir.Node | None]:
    """What reads the values past moves; None for the graph's outputs. Each move is looked at once."""
    pending, seen = list(values), set(values)
    while pending:
        value = pending.pop()
        if value.is_graph_output():
            yield None
        for node in value.consumers():
            if node.op_type not in MOVES:
                yield node
            elif node.outputs[0] not in seen:
                seen.add(node.outputs[0])
                pending.append(node.outputs[0])


def _is_float(node: ir.Node) -> bool:
    if node.op_type in _FLOAT:
        return True
    return node.op_type in _JOINS and not all(is_dequantized(value) for value in node.inputs)


def is_dequantized(value: ir.Value | None) -> bool:
    """Whether it is DequantizeLinear's, past what only moves data."""
    node = value.producer() if value is not None else None
    while node is not None and node.op_type in MOVES and node.op_type != "Concat":
        node = node.inputs[0].producer() if node.inputs[0] is not None else None
    return node is not None and node.op_type == "DequantizeLinear"
