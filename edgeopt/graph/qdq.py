"""QuantizeLinear and DequantizeLinear as one thing: a point where a tensor is put on a grid."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgeopt.core.errors import GraphError

__all__ = [
    "BITS_KEY",
    "NAME_KEY",
    "NODE_KEY",
    "RANGE_KEY",
    "SPARSITY_KEY",
    "Point",
    "activation_points",
    "add_initializer",
    "array_of",
    "is_plain_product",
    "new_initializer",
    "other_quantizers",
    "set_grid",
    "weight_nodes",
    "weighted_nodes",
]

BITS_KEY = "edgeopt.weight_bits"  # on a weighted op: bits of its integer weight, where that is less than 8
RANGE_KEY = "edgeopt.range"  # on QuantizeLinear: "low high", what calibration saw there
SPARSITY_KEY = "edgeopt.sparsity"  # on a weighted op: the N:M pattern that its weight was proved to hold
NAME_KEY = "edgeopt.name"  # on a runtime's own op: the name of the product that it was written for
NODE_KEY = "edgeopt.node"  # on a weighted op: the fx node of the exported program that it came from


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """An activation's QuantizeLinear and every DequantizeLinear that reads it.

    Attributes:
        scale: > 0; one for the whole tensor.
        zero_point: In the range of ``dtype``.
        dtype: ``int8`` or ``uint8``.
        low: Smallest value seen in calibration, and ``high`` the largest; None where it is not recorded.
    """

    quantize: ir.Node
    dequantize: tuple[ir.Node, ...]
    scale: np.float32
    zero_point: int
    dtype: str
    low: float | None
    high: float | None

    @property
    def tensor(self) -> ir.Value:
        """What is quantized."""
        value = self.quantize.inputs[0]
        if value is None:
            raise GraphError("A QuantizeLinear has no input.", got=self.quantize.name)
        return value


def activation_points(graph: ir.Graph) -> list[Point]:
    """Every per-tensor int8 or uint8 point of ``graph`` whose readers are all DequantizeLinear, in order."""
    points = (_point(node) for node in graph if node.op_type == "QuantizeLinear")
    return [point for point in points if point is not None]


def other_quantizers(graph: ir.Graph) -> list[ir.Node]:
    """The QuantizeLinear nodes that are no ``Point``: read by another op, a graph output, per channel, or 16 bits."""
    known = {id(point.quantize) for point in activation_points(graph)}
    return [node for node in graph if node.op_type == "QuantizeLinear" and id(node) not in known]


def weight_nodes(graph: ir.Graph) -> Iterator[ir.Node]:
    """Every DequantizeLinear that reads a constant."""
    for node in graph:
        if node.op_type == "DequantizeLinear" and array_of(node.inputs[0]) is not None:
            yield node


def weighted_nodes(graph: ir.Graph) -> Iterator[tuple[ir.Node, np.ndarray, ir.Node | None]]:
    """Every Conv, ConvTranspose, Gemm and MatMul with a constant second input.

    Yields:
        The node, its weight as stored (int8 where quantized; of the shape that is read, but for a transpose), and the
        weight's DequantizeLinear or None.
    """
    for node in graph:
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul") or node.domain not in ("", "ai.onnx"):
            continue
        value = node.inputs[1]
        producer, shape = value.producer() if value is not None else None, None
        while producer is not None and producer.op_type in ("Transpose", "Reshape"):
            if producer.op_type == "Reshape":  # one scale per group: see ``BlockWeights``
                shape = array_of(producer.inputs[1])
            inner = producer.inputs[0]
            producer = inner.producer() if inner is not None else None
        if producer is not None and producer.op_type == "DequantizeLinear":
            weight = array_of(producer.inputs[0])
            if weight is not None:
                yield node, weight if shape is None else weight.reshape(shape), producer
        else:
            weight = array_of(value)
            if weight is not None:
                yield node, weight, None


def is_plain_product(node: ir.Node) -> bool:
    """Whether a MatMul or Gemm is x·W + b and nothing else: no factors, x as it stands."""
    factors = all(node.attributes.get_float(name, 1.0) == 1.0 for name in ("alpha", "beta"))
    return factors and not node.attributes.get_int("transA", 0)


def array_of(value: ir.Value | None) -> np.ndarray | None:
    """The constant that a value holds (an initializer's or a Constant node's), or None."""
    tensor = ir.convenience.get_const_tensor(value) if value is not None else None
    return None if tensor is None else tensor.numpy()


def add_initializer(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """Add a constant; a number is appended where the name is taken by other content.

    Returns:
        The value that nodes can read; an existing one of that name with equal content is reused.
    """
    taken = {value.name for value in graph.inputs} | {out.name for node in graph for out in node.outputs}
    candidate, count = name, 0
    while True:
        existing = graph.initializers.get(candidate)
        if existing is not None and existing.const_value is not None:
            other = existing.const_value.numpy()
            if other.dtype == array.dtype and other.shape == array.shape and np.array_equal(other, array):
                return existing
        elif candidate not in taken:
            break
        count += 1
        candidate = f"{name}_{count}"
    return new_initializer(graph, candidate, array)


def new_initializer(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """Add a constant under a name that is free."""
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def set_grid(graph: ir.Graph, point: Point, scale: np.float32, zero_point: int, dtype: str) -> None:
    """Put ``point`` on another grid: its QuantizeLinear and all of its readers."""
    name = point.quantize.outputs[0].name or "point"
    scale_value = add_initializer(graph, f"{name}_scale", np.array(scale, np.float32))
    zero_value = add_initializer(graph, f"{name}_zero_point", np.array(zero_point, dtype))
    for node in (point.quantize, *point.dequantize):
        # output_dtype and friends would contradict the zero point's type
        node.attributes.pop("output_dtype", None)
        if len(node.inputs) < 3:
            node.resize_inputs(3)
        node.replace_input_with(1, scale_value)
        node.replace_input_with(2, zero_value)
    point.quantize.outputs[0].type = ir.TensorType(ir.DataType.UINT8 if dtype == "uint8" else ir.DataType.INT8)


def _point(node: ir.Node) -> Point | None:
    readers = node.outputs[0].consumers()
    scale = array_of(node.inputs[1])
    zero = array_of(node.inputs[2]) if len(node.inputs) > 2 else np.zeros((), np.uint8)
    if (
        node.outputs[0].is_graph_output()
        or not readers
        or any(reader.op_type != "DequantizeLinear" for reader in readers)
        or scale is None
        or zero is None
        or scale.size != 1
        or scale.dtype != np.float32
        or zero.dtype not in (np.int8, np.uint8)
    ):
        return None
    low, high = _range(node)
    return Point(
        quantize=node,
        dequantize=tuple(readers),
        scale=scale.reshape(-1)[0],
        zero_point=int(zero.reshape(-1)[0]) if zero.size else 0,
        dtype=zero.dtype.name,
        low=low,
        high=high,
    )


def _range(node: ir.Node) -> tuple[float, float] | tuple[None, None]:
    text = node.metadata_props.get(RANGE_KEY)
    if text is None:
        return None, None
    try:
        low, high = (float(part) for part in text.split())
    except ValueError as error:
        raise GraphError(f"The recorded range of {node.name!r} cannot be read.", got=repr(text)) from error
    return low, high
