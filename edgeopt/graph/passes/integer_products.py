"""Write quantized matrix products as ONNX Runtime's own MatMulIntegerToFloat, with the bias and without zero points of weights.

What ONNX Runtime makes itself of Q/DQ around a MatMul is that operator with a zero point per column, and an Add behind it for
the bias; of a Gemm in front of a Q it makes a QGemm, which asks for a zero point per column too. The kernel then corrects for
zero points that are all 0, and the bias is a pass of its own. Written out, a ViT of 65 tokens takes 0.92 of its time and an MLP
0.93 (one thread, AVX512-VNNI, ONNX Runtime 1.32); small products win nothing, so this is a form that is timed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgeopt.graph.passes.pack_int4 import is_four_bits
from edgeopt.graph.qdq import NAME_KEY, add_initializer, array_of

__all__ = ["IntegerProducts"]

_DOMAIN = "com.microsoft"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Product:
    """y = DQ(x) · DQ(W) + bias: the node, or the Add behind it, whose output y is."""

    node: ir.Node
    end: ir.Node
    data: ir.Node
    weight: np.ndarray
    dequantize: ir.Node
    bias: np.ndarray | None


class IntegerProducts(ir.passes.InPlacePass):
    """MatMul or Gemm (DQ(x), DQ(W)) + b becomes com.microsoft.MatMulIntegerToFloat(x, W, …, b): the same sums, rounded once less.

    Only where x is uint8 and W a matrix of 8 bits with zero points of 0, one scale per column or one for all.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite every such product."""
        found = [product for node in list(model.graph) if (product := _product(node)) is not None]
        for product in found:
            _rewrite(model.graph, product)
        if found:
            model.opset_imports[_DOMAIN] = 1
        return ir.passes.PassResult(model, modified=bool(found))


def _product(node: ir.Node) -> _Product | None:
    if node.op_type not in ("MatMul", "Gemm") or node.domain not in ("", "ai.onnx") or is_four_bits(node):
        return None
    factors = all(node.attributes.get_float(name, 1.0) == 1.0 for name in ("alpha", "beta"))
    plain = factors and node.attributes.get_int("transA", 0) == 0
    data, (dequantize, transposed) = _dequantize(node.inputs[0]), _way(node)
    if not plain or data is None or dequantize is None:
        return None
    weight = array_of(dequantize.inputs[0])
    if weight is None or weight.dtype != np.int8 or weight.ndim != 2 or not _is_unsigned(data):
        return None
    if not _has_scale_per_column(dequantize, weight, transposed=transposed):
        return None
    end, bias = _bias(node, weight.shape[0 if transposed else 1])
    if end is None:
        return None
    columns = np.ascontiguousarray(weight.T) if transposed else weight
    return _Product(node=node, end=end, data=data, weight=columns, dequantize=dequantize, bias=bias)


def _dequantize(value: ir.Value | None) -> ir.Node | None:
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type == "DequantizeLinear" else None


def _way(node: ir.Node) -> tuple[ir.Node | None, bool]:
    """The weight's DequantizeLinear, and whether the product reads it transposed."""
    transposed = bool(node.attributes.get_int("transB", 0))
    value = node.inputs[1]
    maker = value.producer() if value is not None else None
    if maker is not None and maker.op_type == "Transpose":
        transposed = not transposed
        value = maker.inputs[0]
    return _dequantize(value), transposed


def _is_unsigned(data: ir.Node) -> bool:
    """Whether it reads uint8 on one grid."""
    scale, zero = array_of(data.inputs[1]), array_of(data.inputs[2]) if len(data.inputs) > 2 else None
    return scale is not None and scale.size == 1 and zero is not None and zero.size == 1 and zero.dtype == np.uint8


def _has_scale_per_column(dequantize: ir.Node, weight: np.ndarray, *, transposed: bool) -> bool:
    scale, zero = array_of(dequantize.inputs[1]), array_of(dequantize.inputs[2]) if len(dequantize.inputs) > 2 else None
    if scale is None or scale.dtype != np.float32 or (zero is not None and zero.any()):
        return False
    columns = 0 if transposed else 1
    axis = dequantize.attributes.get_int("axis", 1)
    is_blocked = dequantize.attributes.get_int("block_size", 0) != 0
    return not is_blocked and (scale.size == 1 or (axis % 2 == columns and scale.shape == (weight.shape[columns],)))


def _bias(node: ir.Node, columns: int) -> tuple[ir.Node | None, np.ndarray | None]:
    """The node whose output is the biased product, and the bias; no node where the bias is none that the operator takes."""
    if node.op_type == "Gemm":
        if len(node.inputs) < 3 or node.inputs[2] is None:
            return node, None
        bias = _constant(node.inputs[2])
        return (None, None) if bias is None or bias.shape != (columns,) else (node, bias)
    readers = node.outputs[0].consumers()
    if len(readers) == 1 and readers[0].op_type == "Add" and not node.outputs[0].is_graph_output():
        other = next((value for value in readers[0].inputs if value is not node.outputs[0]), None)
        bias = _constant(other)
        if bias is not None and bias.shape == (columns,):
            return readers[0], bias
    return node, None


def _constant(value: ir.Value | None) -> np.ndarray | None:
    """A float constant, also one that is stored as integers."""
    found, node = array_of(value), _dequantize(value)
    if found is None and node is not None:
        integers, scale = array_of(node.inputs[0]), array_of(node.inputs[1])
        zero = array_of(node.inputs[2]) if len(node.inputs) > 2 else None
        if integers is not None and scale is not None and (zero is None or not zero.any()):
            found = (integers.astype(np.float64) * scale).astype(np.float32)
    return found if found is not None and found.dtype == np.float32 else None


def _rewrite(graph: ir.Graph, product: _Product) -> None:
    old, data = product.end.outputs[0], product.data
    name = old.name
    weight = add_initializer(graph, f"{product.dequantize.inputs[0].name}_columns", product.weight)  # type: ignore[union-attr]
    bias = [] if product.bias is None else [None, add_initializer(graph, f"{name}_float_bias", product.bias)]
    made = ir.node(
        "MatMulIntegerToFloat",
        [data.inputs[0], weight, data.inputs[1], product.dequantize.inputs[1], data.inputs[2], *bias],
        domain=_DOMAIN,
        num_outputs=1,
        name=product.node.name,
    )
    made.metadata_props.update(product.node.metadata_props)
    if product.node.name:
        made.metadata_props[NAME_KEY] = product.node.name  # what was said of it stays found
    new = made.outputs[0]
    new.shape, new.type = old.shape, old.type
    graph.insert_before(product.end, made)
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    gone = [product.end] if product.end is product.node else [product.end, product.node]
    graph.remove(gone, safe=True)
    new.name = name
