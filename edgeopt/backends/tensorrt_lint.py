"""What TensorRT refuses, misreads or runs in float, found in the graph itself: no TensorRT, no GPU.

The rules were found by giving such graphs to the parser and builder of TensorRT-RTX 1.7.1 on a CPU, and agree with
TensorRT's documentation on explicit quantization ("Working with Quantized Types").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeopt.backends.base import Finding
from edgeopt.backends.graphs import Graph
from edgeopt.core.errors import BackendError
from edgeopt.targets.schema import RuntimeRules

if TYPE_CHECKING:
    import onnx

__all__ = ["RULES", "lint"]

RULES: Mapping[str, str] = {
    "TRT001": "uint8 quantization: TensorRT reads it as int8, wrong above 127",
    "TRT002": "a zero point that is not 0: only symmetric int8 is taken",
    "TRT003": "a scale that is not above 0",
    "TRT004": "an int32 bias behind DequantizeLinear: the bias must be float",
    "TRT005": "an activation quantized per channel: it runs in float",
    "TRT006": "convolution weights quantized along another axis than 0: it runs in float",
    "TRT007": "a ConvTranspose with Q/DQ: it runs in float",
    "TRT008": "an operator on integers (QLinear…, …Integer): only QuantizeLinear/DequantizeLinear are taken",
    "TRT009": "an operator of another domain: it would need a plug-in",
    "TRT010": "an opset newer than the target's parser reads",
    "TRT011": "a quantized type other than int8",
    "TRT012": "an operator that TensorRT does not have",
    "TRT013": "a quantized activation with a float weight: it runs in float",
    "TRT014": "an input that varies beyond its batch",
}
"""Rule id → what it finds."""

_ERRORS = frozenset(RULES) - {"TRT005", "TRT006", "TRT007", "TRT013"}
_INTEGER_OPS = frozenset({"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"})
_MISSING_OPS = frozenset({"Det", "Unique", "StringConcat", "StringNormalizer", "StringSplit", "RegexFullMatch"})
_ONNX_DOMAINS = ("", "ai.onnx")


def lint(graph: Graph, rules: RuntimeRules) -> list[Finding]:
    """Everything that the rules find in ``graph``, in the graph's order. Nothing is run."""
    findings = list(_whole(graph, rules))
    facts = _Facts.of(graph)
    for node in facts.nodes:
        findings += _operator(node)
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            findings += _quantizer(node, facts)
        elif node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            findings += _weighted(node, facts)
    return list(dict.fromkeys(findings))


def _finding(rule: str, node: onnx.NodeProto | None, message: str) -> Finding:
    name = None if node is None else node.name or node.output[0]
    return Finding(severity="error" if rule in _ERRORS else "warning", rule=rule, node=name, message=message)


def _whole(graph: Graph, rules: RuntimeRules) -> Iterator[Finding]:
    if graph.opset > rules.opset_max:
        message = f"The graph has opset {graph.opset}; the target's parser reads up to {rules.opset_max}."
        yield _finding("TRT010", None, f"{message} Export with --set export.opset or another target.")
    try:
        graph.require_batch_only("TensorRT")
    except BackendError as error:
        yield _finding("TRT014", None, str(error))


def _operator(node: onnx.NodeProto) -> Iterator[Finding]:
    if node.domain not in _ONNX_DOMAINS:
        yield _finding(
            "TRT009", node, f"{node.domain}::{node.op_type} is not ONNX's own: TensorRT needs a plug-in for it."
        )
    elif node.op_type in _INTEGER_OPS:
        yield _finding("TRT008", node, f"{node.op_type} is not taken: write it as float between Q/DQ.")
    elif node.op_type in _MISSING_OPS:
        yield _finding("TRT012", node, f"TensorRT has no {node.op_type}: replace it in the model.")


def _quantizer(node: onnx.NodeProto, facts: _Facts) -> Iterator[Finding]:
    scale, zero = (facts.constants.get(node.input[i]) if len(node.input) > i else None for i in (1, 2))
    dtype = facts.quantized_dtype(node)
    is_weight = node.input[0] in facts.constants
    if dtype == "uint8":
        yield _finding("TRT001", node, "uint8 is read as int8 without a word: write it as int8 with zero point 0.")
    elif dtype == "int32":
        yield _finding("TRT004", node, "A bias must stay float: TensorRT quantizes it itself.")
    elif dtype is not None and dtype not in ("int8", "float8_e4m3fn"):
        yield _finding("TRT011", node, f"{dtype} is not taken: write it as int8.")
    if zero is not None and np.any(zero.astype(np.float64) != 0):
        worst = zero.ravel()[np.abs(zero.astype(np.float64)).argmax()]
        yield _finding("TRT002", node, f"The zero point is {worst}: only symmetric int8, zero point 0, is taken.")
    if scale is not None and not np.all(np.isfinite(scale) & (scale > 0)):
        yield _finding("TRT003", node, f"The smallest scale is {scale.min()}: every scale must be above 0.")
    if scale is not None and scale.size > 1 and not is_weight and not facts.comes_from_weight(node):
        yield _finding("TRT005", node, "An activation with one scale per channel runs in float: use one scale.")


def _weighted(node: onnx.NodeProto, facts: _Facts) -> Iterator[Finding]:
    data, weight = (facts.dequantizer(node.input[i]) for i in (0, 1))
    if node.op_type == "ConvTranspose":
        if data is not None or weight is not None:
            yield _finding("TRT007", node, "TensorRT runs ConvTranspose in float: leave it unquantized.")
        return
    if data is not None and weight is None and node.input[1] in facts.constants:
        yield _finding("TRT013", node, "Its input is quantized and its weight is not: it runs in float.")
    if node.op_type == "Conv" and weight is not None:
        scale = facts.constants.get(weight.input[1])
        axis = next((a.i for a in weight.attribute if a.name == "axis"), 1)
        if scale is not None and scale.size > 1 and axis != 0:
            message = f"Its weight has one scale per slice of axis {axis}: int8 needs axis 0, the output channels."
            yield _finding("TRT006", node, message)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Facts:
    """The graph's nodes (those of subgraphs too), constants by name, and who makes what."""

    nodes: tuple[onnx.NodeProto, ...]
    constants: Mapping[str, np.ndarray]
    makers: Mapping[str, onnx.NodeProto]

    @classmethod
    def of(cls, graph: Graph) -> _Facts:
        from onnx import numpy_helper  # noqa: PLC0415

        folder = str(graph.path.parent)
        nodes, tensors = _walk(graph.model.graph)
        made = ((node.output[0], a) for node in nodes if node.op_type == "Constant" for a in node.attribute)
        tensors |= {name: attribute.t for name, attribute in made if attribute.name == "value"}
        needed = {name for n in nodes if n.op_type.endswith("uantizeLinear") for name in n.input[1:]}
        # Weights are not read, only known to be there: an empty array of their type stands for them.
        constants = {
            name: numpy_helper.to_array(tensor, folder) if name in needed else _placeholder(tensor)
            for name, tensor in tensors.items()
        }
        makers = {name: node for node in nodes for name in node.output}
        return cls(nodes=tuple(nodes), constants=constants, makers=makers)

    def dequantizer(self, name: str) -> onnx.NodeProto | None:
        """The DequantizeLinear that makes a tensor, or None."""
        node = self.makers.get(name)
        return node if node is not None and node.op_type == "DequantizeLinear" else None

    def comes_from_weight(self, node: onnx.NodeProto) -> bool:
        """Whether a DequantizeLinear's QuantizeLinear reads a constant: a weight quantized at run time."""
        maker = self.makers.get(node.input[0])
        return maker is not None and maker.op_type == "QuantizeLinear" and maker.input[0] in self.constants

    def quantized_dtype(self, node: onnx.NodeProto) -> str | None:
        """The integer type of a Q or DQ; None where only the runtime would know."""
        from onnx.helper import tensor_dtype_to_np_dtype  # noqa: PLC0415

        if len(node.input) > 2 and node.input[2]:
            zero = self.constants.get(node.input[2])
            return None if zero is None else str(zero.dtype)
        if node.op_type == "QuantizeLinear":
            kind = next((a.i for a in node.attribute if a.name == "output_dtype"), 0)
            return str(tensor_dtype_to_np_dtype(kind)) if kind else "uint8"
        constant = self.constants.get(node.input[0])
        return None if constant is None else str(constant.dtype)


def _walk(graph: onnx.GraphProto) -> tuple[list[onnx.NodeProto], dict[str, onnx.TensorProto]]:
    nodes: list[onnx.NodeProto] = []
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        nodes.append(node)
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                inner_nodes, inner_tensors = _walk(inner)
                nodes += inner_nodes
                tensors |= inner_tensors
    return nodes, tensors


def _placeholder(tensor: onnx.TensorProto) -> np.ndarray:
    from onnx.helper import tensor_dtype_to_np_dtype  # noqa: PLC0415

    return np.empty(0, tensor_dtype_to_np_dtype(tensor.data_type))
