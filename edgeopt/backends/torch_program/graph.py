"""The ONNX file as a list of nodes with NumPy constants: its batch fixed, bias additions put into their products."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgeopt.backends.graphs import Graph, read_graph
from edgeopt.core.errors import BackendError
from edgeopt.core.spec import TensorSpec

__all__ = ["Node", "Plan", "read_plan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One operation.

    Attributes:
        name: As in the file; its first output's where it has none.
        op: ONNX's operator.
        inputs: Names of values; empty for an optional one that is left out.
        attributes: As Python values; a tensor is a NumPy array.
        proto: The node as it stands in the file, for the evaluation of constants.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    proto: onnx.NodeProto


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A graph that is ready to be built.

    Attributes:
        inputs: With the batch that the program is compiled for; likewise ``outputs``.
        dynamic_batch: Names of the inputs whose first dimension was dynamic.
        rows: Whether every output's first dimension was dynamic too, so that a batch can be run in parts.
        constants: Initializers by name.
    """

    graph: Graph
    nodes: tuple[Node, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    dynamic_batch: tuple[str, ...]
    rows: bool
    constants: Mapping[str, np.ndarray]
    opset: int


def read_plan(path: Path, batch: int, runtime: str) -> Plan:
    """Read an ONNX file whole.

    Args:
        batch: What a dynamic first dimension is fixed to.
        runtime: The runtime's name, as an error says it.

    Raises:
        BackendError: The file is not an ONNX model, its external data is missing, or an input varies beyond its batch.
    """
    graph = read_graph(path)
    graph.require_batch_only(runtime)
    try:
        model = onnx.load(path)
        constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    except Exception as error:
        raise BackendError("The ONNX file's weights cannot be read.", got=error) from error
    nodes = tuple(_node(proto) for proto in model.graph.node)
    dynamic = graph.dynamic_batch
    return Plan(
        graph=graph,
        nodes=_with_biases(nodes, constants, {spec.name for spec in graph.outputs}),
        inputs=tuple(spec.with_batch(batch) if spec.name in dynamic else spec for spec in graph.inputs),
        outputs=graph.outputs,
        dynamic_batch=dynamic,
        rows=bool(dynamic) and all(spec.has_dynamic_batch for spec in graph.outputs),
        constants=constants,
        opset=graph.opset,
    )


def _node(proto: onnx.NodeProto) -> Node:
    attributes = {a.name: _value(helper.get_attribute_value(a)) for a in proto.attribute}
    domain = "" if proto.domain in ("", "ai.onnx") else f"{proto.domain}."
    return Node(
        name=proto.name or proto.output[0],
        op=domain + proto.op_type,
        inputs=tuple(proto.input),
        outputs=tuple(proto.output),
        attributes=attributes,
        proto=proto,
    )


def _value(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def _with_biases(nodes: tuple[Node, ...], constants: Mapping[str, np.ndarray], kept: set[str]) -> tuple[Node, ...]:
    """MatMul by a constant, then Add of a constant vector, become one product with a bias.

    ONNX has no such operation beyond two dimensions, and both runtimes look for one: with the Add between a quantized
    product and its Q, the product leaves int8.
    """
    makers = {name: node for node in nodes for name in node.outputs}
    readers = Counter(name for node in nodes for name in node.inputs)
    merged: dict[str, Node] = {}
    dropped: set[str] = set()
    for node in nodes:
        if node.op != "Add":
            continue
        for value, bias in (node.inputs, node.inputs[::-1]):
            product = makers.get(value)
            if (
                product is not None
                and product.op == "MatMul"
                and product.name not in dropped
                and bias in constants
                and constants[bias].ndim == 1
                and _is_weight(product.inputs[1], makers, constants)
                and readers[value] == 1
                and value not in kept
            ):
                dropped.add(product.name)
                merged[node.name] = replace(product, inputs=(*product.inputs, bias), outputs=node.outputs)
                break
    return tuple(merged.get(node.name, node) for node in nodes if node.name not in dropped)


def _is_weight(name: str, makers: Mapping[str, Node], constants: Mapping[str, np.ndarray]) -> bool:
    maker = makers.get(name)
    while maker is not None and maker.op in ("DequantizeLinear", "Transpose", "Reshape"):
        name = maker.inputs[0]
        maker = makers.get(name)
    return name in constants
