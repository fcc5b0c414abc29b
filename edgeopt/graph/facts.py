"""What a graph is: its interface, its operators, its size, how much of it is quantized."""

from __future__ import annotations

import collections
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from edgeopt.core.spec import TensorSpec
from edgeopt.graph.io import initializer_bytes, load_onnx
from edgeopt.graph.qdq import array_of

__all__ = ["GraphFacts", "graph_facts", "infer_at_batch_1", "is_dequantized", "node_macs"]

_PRODUCT = "MatMulIntegerToFloat"  # ONNX Runtime's own, of which ONNX knows no shape
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", _PRODUCT)


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphFacts:
    """Facts read off an ONNX file.

    Attributes:
        inputs: One spec per input; an open dimension has its name, or ``<input>_<index>`` where it has none.
        outputs: Likewise.
        opset: Of the default domain.
        ops: Operator type → how often it occurs.
        quantized_ops: Share in [0, 1] of Conv, ConvTranspose, Gemm and MatMul with DequantizeLinear on both of their
            first inputs; None where there are no such ops.
        parameters: Elements of constants that enter the computation (no scales, zero points, shapes, single numbers).
        initializer_bytes: Size of all constants.
        macs: Multiply-accumulates for one sample; None where a shape is unknown.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    opset: int
    ops: Mapping[str, int]
    quantized_ops: float | None
    parameters: int
    initializer_bytes: int
    macs: int | None


def graph_facts(path: Path) -> GraphFacts:
    """Read the facts of an ONNX file.

    Raises:
        GraphError: The file cannot be read.
        ModelError: An input or output has a dtype that edgeopt does not know.
    """
    model = load_onnx(path)
    inputs = tuple(_spec(value) for value in model.graph.inputs if not value.is_initializer())
    outputs = tuple(_spec(value) for value in model.graph.outputs)
    weighted = [node for node in model.graph if node.op_type in _WEIGHTED]
    quantized = sum(1 for node in weighted if all(is_dequantized(value) for value in node.inputs[:2]))
    return GraphFacts(
        inputs=inputs,
        outputs=outputs,
        opset=model.opset_imports.get("", 0),
        ops=collections.Counter(node.op_type for graph in model.graphs() for node in graph),
        quantized_ops=quantized / len(weighted) if weighted else None,
        parameters=_parameters(model.graph),
        initializer_bytes=initializer_bytes(model),
        macs=_macs(model),
    )


def _spec(value: ir.Value) -> TensorSpec:
    name = value.name or ""
    dims = value.shape if value.shape is not None else ()
    shape = tuple(d if isinstance(d, int) else str(d.value or f"{name}_{i}") for i, d in enumerate(dims))
    dtype = value.dtype.numpy().name if value.dtype is not None else "unknown"
    return TensorSpec(name=name, dtype=dtype, shape=shape)


def is_dequantized(value: ir.Value | None) -> bool:
    """Whether a value comes out of DequantizeLinear, changes of its shape aside."""
    producer = value.producer() if value is not None else None
    while producer is not None and producer.op_type in ("Transpose", "Reshape") and producer.inputs[0] is not None:
        producer = producer.inputs[0].producer()
    return producer is not None and producer.op_type == "DequantizeLinear"


def _parameters(graph: ir.Graph) -> int:
    total = 0
    for value in graph.initializers.values():
        roles = {
            (node.op_type if node.op_type in ("QuantizeLinear", "DequantizeLinear") else "", index)
            for node, index in value.uses()
        }
        is_grid = all(op and index for op, index in roles)
        tensor = value.const_value
        # single numbers (a factor, an epsilon) and integers (shapes) are not trained
        if tensor is not None and not is_grid and len(tensor.shape) and value.dtype != ir.DataType.INT64:
            total += math.prod(tensor.shape.numpy())
    return total


def infer_at_batch_1(model: ir.Model) -> None:
    """Infer every shape anew with each open first dimension of an input set to 1; ``model`` is changed."""
    for value in model.graph.inputs:
        if value.shape is not None and len(value.shape) and not isinstance(value.shape[0], int):
            value.shape = ir.Shape([1, *value.shape[1:]])
    for node in model.graph:
        for value in node.outputs:
            value.shape = None
    stand_ins = [_stand_in(model.graph, node) for node in list(model.graph) if node.op_type == _PRODUCT]
    ShapeInferencePass(check_type=False, strict_mode=False)(model)
    for node, value, made in stand_ins:
        node.outputs[0].shape = value.shape
        value.replace_all_uses_with(node.outputs[0], replace_graph_outputs=True)
        model.graph.remove(made, safe=True)


def _stand_in(graph: ir.Graph, node: ir.Node) -> tuple[ir.Node, ir.Value, list[ir.Node]]:
    """What ONNX knows the shapes of, read in a product's place: the product, what is read, and the nodes that make it."""
    sums = ir.node("MatMulInteger", node.inputs[:2], num_outputs=1)
    cast = ir.node("Cast", [sums.outputs[0]], {"to": ir.DataType.FLOAT.value}, num_outputs=1)
    for index, made in enumerate((sums, cast)):
        made.outputs[0].name = f"{node.outputs[0].name}/stand-in {index}"
    graph.insert_before(node, [sums, cast])
    node.outputs[0].replace_all_uses_with(cast.outputs[0], replace_graph_outputs=True)
    return node, cast.outputs[0], [sums, cast]


def _macs(model: ir.Model) -> int | None:
    """``model`` is changed."""
    infer_at_batch_1(model)
    total = 0
    for node in model.graph:
        if node.op_type in _WEIGHTED:
            count = node_macs(node)
            if count is None:
                return None
            total += count
    return total


def node_macs(node: ir.Node) -> int | None:
    """Multiply-accumulates of a convolution or matrix product; None for other ops, and where a shape is unknown."""
    if node.op_type not in _WEIGHTED:
        return None
    left, right, out = (_shape(value) for value in (node.inputs[0], node.inputs[1], node.outputs[0]))
    if left is None or right is None or out is None:
        return None
    if node.op_type == "Conv":
        return math.prod(out) * math.prod(right[1:])
    if node.op_type == "ConvTranspose":
        return math.prod(left) * math.prod(right[1:])
    depth = left[0] if node.op_type == "Gemm" and node.attributes.get_int("transA") else left[-1]
    return math.prod(out) * depth


def _shape(value: ir.Value | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    constant = array_of(value) if value.is_initializer() else None
    if constant is not None:
        return constant.shape
    if value.shape is None or any(not isinstance(dim, int) for dim in value.shape):
        return None
    return tuple(int(dim) for dim in value.shape)  # type: ignore[arg-type]
