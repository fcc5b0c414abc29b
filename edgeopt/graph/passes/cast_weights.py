"""Layers that a runtime's int8 kernels slow down: weights stay int8 on disk, the arithmetic is float.

DQ(W) becomes Mul(Cast(W), scale), which is the same number for number. ONNX Runtime folds both into a float weight when it
opens the file (constant folding leaves DequantizeLinear alone, for its Q/DQ fusions), so the layer is an ordinary float
one, and the file is as small as before.

Between quantized tensors ONNX Runtime would quantize a float weight again, per tensor (onnxruntime,
qdq_transformer/weight_bias_quantization.cc), unless the bias is no initializer. It is not: it is DequantizeLinear of int32.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from edgeopt.graph.qdq import add_initializer, array_of, weighted_nodes

__all__ = ["CastWeights"]


class CastWeights(ir.passes.InPlacePass):
    """Conv(DQ(q), DQ(W), DQ(b)), or a Gemm, becomes Conv(DQ(q), Mul(Cast(W), scale), DQ(b)); every value stays the same.

    Runs after ``QuantizeBias``.

    Args:
        slow: Whether the int8 kernel for a node with that weight (as stored) is slower than the float one.
        integer_bias: Whether only layers are rewritten whose bias is DequantizeLinear's, for ONNX Runtime.
    """

    def __init__(self, slow: Callable[[ir.Node, np.ndarray], bool], *, integer_bias: bool = True) -> None:
        super().__init__()
        self._slow = slow
        self._integer_bias = integer_bias
        self.changed: list[ir.Node] = []
        """The nodes that are float now, in order."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite what is slow and has symmetric int8 weights."""
        self.changed = []
        for node, weight, dequantize in list(weighted_nodes(model.graph)):
            plain = node.op_type in ("Conv", "Gemm") and dequantize is not None and _is_plain(node, dequantize)
            if dequantize is None or not plain or not self._slow(node, weight):
                continue
            if not self._integer_bias or _has_integer_bias(model.graph, node):
                _rewrite(model.graph, node, dequantize, weight)
                self.changed.append(node)
        return ir.passes.PassResult(model, modified=bool(self.changed))


def _is_plain(node: ir.Node, dequantize: ir.Node) -> bool:
    """An int8 weight right before the node, one scale or one per slice of an axis, zero point 0."""
    weight, scale = array_of(dequantize.inputs[0]), array_of(dequantize.inputs[1])
    zero = array_of(dequantize.inputs[2]) if len(dequantize.inputs) > 2 else np.zeros((), np.int8)
    return (
        node.inputs[1] is dequantize.outputs[0]
        and weight is not None
        and weight.dtype == np.int8
        and scale is not None
        and scale.ndim < 2
        and zero is not None
        and not zero.any()
    )


def _has_integer_bias(graph: ir.Graph, node: ir.Node) -> bool:
    """Whether the bias is DequantizeLinear's; where there is none, one of zeros is added."""
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None:
        producer = bias.producer()
        return producer is not None and producer.op_type == "DequantizeLinear"
    weight = node.inputs[1].producer() if node.inputs[1] is not None else None
    stored = array_of(weight.inputs[0]) if weight is not None else None
    if stored is None:
        return False
    name = f"{node.outputs[0].name}_no_bias"
    axis = -1 if node.op_type == "Gemm" and not node.attributes.get_int("transB", 0) else 0
    zeros = add_initializer(graph, name, np.zeros(stored.shape[axis], np.int32))
    one = add_initializer(graph, f"{name}_step", np.ones((), np.float32))
    dequantize = ir.node("DequantizeLinear", [zeros, one], num_outputs=1, name=f"{name}_dq")
    dequantize.outputs[0].name = f"{name}_dq"
    graph.insert_before(node, dequantize)
    node.resize_inputs(3)
    node.replace_input_with(2, dequantize.outputs[0])
    return True


def _rewrite(graph: ir.Graph, node: ir.Node, dequantize: ir.Node, weight: np.ndarray) -> None:
    scale = array_of(dequantize.inputs[1])
    axis = dequantize.attributes.get_int("axis", 1)
    if scale is not None and scale.size > 1:
        scale = scale.reshape([-1 if i == axis % weight.ndim else 1 for i in range(weight.ndim)])
    name = dequantize.outputs[0].name
    factor = add_initializer(graph, f"{name}_step", np.asarray(scale, np.float32))
    cast = ir.node(
        "Cast", [dequantize.inputs[0]], {"to": ir.DataType.FLOAT.value}, num_outputs=1, name=f"{name}_{node.name}_cast"
    )
    product = ir.node("Mul", [cast.outputs[0], factor], num_outputs=1, name=f"{name}_{node.name}_scaled")
    for made in (cast, product):
        value = made.outputs[0]
        value.name, value.shape, value.type = made.name, ir.Shape(weight.shape), ir.TensorType(ir.DataType.FLOAT)
    graph.insert_before(node, [cast, product])
    node.replace_input_with(1, product.outputs[0])
