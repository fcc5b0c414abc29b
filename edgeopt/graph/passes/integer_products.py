"""Write quantized matrix products as ONNX Runtime's own MatMulIntegerToFloat, with the bias and without zero points of weights.

What ONNX Runtime makes itself of Q/DQ around a MatMul is that operator with a zero point per column, and an Add behind it for
the bias; of a Gemm in front of a Q it makes a QGemm, which asks for a zero point per column too. The kernel then corrects for
zero points that are all 0, and the bias is a pass of its own. Written out, a ViT of 65 tokens takes 0.92 of its time and an MLP
0.93 (one thread, AVX512-VNNI, ONNX Runtime 1.32); small products win nothing, so this is a form that is timed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgeopt.graph.passes.pack_int4 import is_four_bits
from edgeopt.graph.qdq import NAME_KEY, add_initializer, array_of, is_plain_product, weighted_nodes

__all__ = ["IntegerProducts"]

_DOMAIN = "com.microsoft"
_FEW = 64  # columns: so many scales cost no time
_COARSEST = 2.5  # of the root mean square of the columns' steps, what one for all of them may be


@dataclass(frozen=True, slots=True, kw_only=True)
class _Product:
    """A product and what it reads; ``end`` is it, or the Add of its bias behind it."""

    node: ir.Node
    end: ir.Node
    data: ir.Node
    weight: np.ndarray
    scale: np.ndarray
    dequantize: ir.Node
    bias: ir.Value | None


class IntegerProducts(ir.passes.InPlacePass):
    """MatMul or Gemm (DQ(x), DQ(W)) + b becomes com.microsoft.MatMulIntegerToFloat(x, W, …, b): the same sums, rounded once less.

    Only where x is uint8 and W a matrix of 8 bits with zero points of 0, one scale per column or one for all. Runs before
    ``QuantizeBias``: the operator adds a float bias.

    Args:
        one_scale: Put wide weights on one scale, the largest of their columns', where that is not much coarser than most of
            them: the weights are rounded a second time, none is clipped, and the kernel has one factor for all sums.

    Attributes:
        coarser: How many weights were.
    """

    def __init__(self, *, one_scale: bool = False) -> None:
        super().__init__()
        self.one_scale, self.coarser = one_scale, 0

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite every such product."""
        found = list(_products(model.graph))
        for product in found:
            alike = self.one_scale and _are_alike(product.scale)
            _rewrite(model.graph, _on_one_scale(product) if alike else product)
            self.coarser += alike
        if found:
            model.opset_imports[_DOMAIN] = 1
        return ir.passes.PassResult(model, modified=bool(found))


def _products(graph: ir.Graph) -> Iterator[_Product]:
    for node, weight, dequantize in weighted_nodes(graph):
        if node.op_type not in ("MatMul", "Gemm") or dequantize is None or node.inputs[1] is not dequantize.outputs[0]:
            continue
        data = node.inputs[0].producer() if node.inputs[0] is not None else None
        if data is None or not _is_unsigned(data) or not is_plain_product(node):
            continue
        transposed = bool(node.attributes.get_int("transB", 0))
        if weight.dtype != np.int8 or weight.ndim != 2 or is_four_bits(node):
            continue
        columns = 0 if transposed else 1
        end, bias = _bias(node, weight.shape[columns])
        scale = _scale_of_columns(dequantize, weight, columns)
        if end is not None and scale is not None:
            stored = np.ascontiguousarray(weight.T) if transposed else weight
            yield _Product(node=node, end=end, data=data, weight=stored, scale=scale, dequantize=dequantize, bias=bias)


def _is_unsigned(data: ir.Node) -> bool:
    """Whether it dequantizes uint8 on one grid."""
    if data.op_type != "DequantizeLinear" or len(data.inputs) < 3:
        return False
    scale, zero = array_of(data.inputs[1]), array_of(data.inputs[2])
    return scale is not None and scale.size == 1 and zero is not None and zero.size == 1 and zero.dtype == np.uint8


def _scale_of_columns(dequantize: ir.Node, weight: np.ndarray, columns: int) -> np.ndarray | None:
    """One scale for all, or one per column; None where it is something else, or there are zero points."""
    scale, zero = array_of(dequantize.inputs[1]), array_of(dequantize.inputs[2]) if len(dequantize.inputs) > 2 else None
    if scale is None or scale.dtype != np.float32 or (zero is not None and zero.any()):
        return None
    axis = dequantize.attributes.get_int("axis", 1)
    fits = scale.size == 1 or (axis % 2 == columns and scale.shape == (weight.shape[columns],))
    return scale if fits else None


def _are_alike(scale: np.ndarray) -> bool:
    return scale.size > _FEW and bool(scale.max() <= _COARSEST * np.sqrt(np.square(scale, dtype=np.float64).mean()))


def _on_one_scale(product: _Product) -> _Product:
    scale = product.scale.max()
    weight = np.rint(product.weight * (product.scale.astype(np.float64) / scale)).astype(np.int8)
    return dataclasses.replace(product, weight=weight, scale=scale.reshape(()))


def _bias(node: ir.Node, columns: int) -> tuple[ir.Node | None, ir.Value | None]:
    """The node whose output is the biased product, and the bias; no node where the bias is none that the operator takes."""
    if node.op_type == "Gemm":
        value = node.inputs[2] if len(node.inputs) > 2 else None
        return (node, value) if value is None or _is_row(value, columns) else (None, None)
    readers = node.outputs[0].consumers()
    if len(readers) == 1 and readers[0].op_type == "Add" and not node.outputs[0].is_graph_output():
        other = next((value for value in readers[0].inputs if value is not node.outputs[0]), None)
        if _is_row(other, columns):
            return readers[0], other
    return node, None


def _is_row(value: ir.Value | None, columns: int) -> bool:
    row = array_of(value)
    return row is not None and row.dtype == np.float32 and row.shape == (columns,)


def _rewrite(graph: ir.Graph, product: _Product) -> None:
    old, data = product.end.outputs[0], product.data
    name = old.name
    weight = add_initializer(graph, f"{product.dequantize.inputs[0].name}_columns", product.weight)  # type: ignore[union-attr]
    scale = add_initializer(graph, f"{product.dequantize.inputs[0].name}_scale", product.scale)  # type: ignore[union-attr]
    made = ir.node(
        "MatMulIntegerToFloat",
        [
            *(data.inputs[0], weight, data.inputs[1], scale, data.inputs[2]),
            *([] if product.bias is None else [None, product.bias]),
        ],
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
    graph.remove([product.end] if product.end is product.node else [product.end, product.node], safe=True)
    new.name = name
