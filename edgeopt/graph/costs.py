"""What each op of an ONNX graph costs: multiplications, weights, outputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from edgeopt.graph.facts import infer_at_batch_1, node_macs
from edgeopt.graph.io import load_onnx
from edgeopt.graph.qdq import weighted_nodes

__all__ = ["NodeCost", "node_costs", "weight_sizes"]

# They move values or describe shapes: most runtimes make no tensor of their own for them.
_NO_WORK = {
    *("Constant", "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Shape", "Size", "Cast", "ConstantOfShape"),
    *("Range", "Dropout"),
}
_RECURRENT = ("GRU", "LSTM", "RNN")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCost:
    """One node.

    Attributes:
        name: As the file has it; that of its output where it has none.
        output_shape: Of its first output; empty where it is not known.
        macs: For one sample; None where it multiplies nothing that is counted, or a size is not known.
        parameters: Elements of the constants that it is the first to read.
        weight_bytes: Of these.
        output_bytes: Of its outputs whose sizes are known.
    """

    name: str
    op: str
    output_shape: tuple[int, ...]
    macs: int | None
    parameters: int
    weight_bytes: int
    output_bytes: int


def node_costs(path: Path) -> tuple[NodeCost, ...]:
    """Every node that computes, in the graph's order, with an open batch at 1.

    Raises:
        GraphError: The file cannot be read.
    """
    model = load_onnx(path)
    infer_at_batch_1(model)
    seen: set[int] = set()
    return tuple(_cost(node, seen) for node in model.graph if node.op_type not in _NO_WORK)


def weight_sizes(path: Path) -> dict[str, int]:
    """Elements of the constant operand of each convolution and matrix product, by the node's name.

    Raises:
        GraphError: The file cannot be read.
    """
    found = weighted_nodes(load_onnx(path).graph)
    return {node.name or node.outputs[0].name or "": int(weight.size) for node, weight, _ in found}


def _cost(node: ir.Node, seen: set[int]) -> NodeCost:
    parameters = size = 0
    for value in node.inputs:
        tensor = value.const_value if value is not None and value.is_initializer() else None
        if tensor is None or id(value) in seen:
            continue
        seen.add(id(value))
        if len(tensor.shape) and tensor.dtype != ir.DataType.INT64:
            parameters += math.prod(tensor.shape.numpy())
            size += tensor.nbytes
    shapes = [_shape(value) for value in node.outputs]
    sizes = [
        math.prod(shape) * value.dtype.itemsize
        for value, shape in zip(node.outputs, shapes, strict=True)
        if shape is not None and value.dtype is not None
    ]
    return NodeCost(
        name=node.name or (node.outputs[0].name or "" if node.outputs else ""),
        op=node.op_type,
        output_shape=shapes[0] or () if shapes else (),
        macs=_recurrent(node) if node.op_type in _RECURRENT else node_macs(node),
        parameters=parameters,
        weight_bytes=size,
        output_bytes=int(sum(sizes)),
    )


def _recurrent(node: ir.Node) -> int | None:
    """Input [steps, batch, features] meets W [directions, gates, features] and R [directions, gates, hidden]."""
    source, *weights = (_shape(value) for value in node.inputs[:3])
    if source is None or any(shape is None for shape in weights):
        return None
    return math.prod(source[:-1]) * sum(math.prod(shape) for shape in weights if shape is not None)


def _shape(value: ir.Value | None) -> tuple[int, ...] | None:
    if value is None or value.shape is None or any(not isinstance(dim, int) for dim in value.shape):
        return None
    return tuple(int(dim) for dim in value.shape)  # type: ignore[arg-type]
