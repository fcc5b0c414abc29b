"""What an integer kernel will multiply: the stored weights of every quantized layer, and how large its input can become."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from edgeopt.core.saturation import Layout
from edgeopt.graph.dialects.grids import upper_bound
from edgeopt.graph.passes.hoist_quantize import MOVES
from edgeopt.graph.qdq import array_of

__all__ = ["IntegerLayer", "Kernels", "integer_layers", "lanes_of"]

Kernels = Literal["onnxruntime", "openvino", "unknown"]
"""Whose kernels multiply: what is known of which weights they add in 16 bits. See ``edgeopt.core.saturation``."""

_INPUTS = {  # operator → positions of the input and of the weight, both stored as integers
    "QLinearConv": (0, 3),
    "QLinearMatMul": (0, 3),
    "QGemm": (0, 3),
    "ConvInteger": (0, 1),
    "MatMulInteger": (0, 1),
    "MatMulIntegerToFloat": (0, 1),
    "DynamicQuantizeMatMul": (0, 1),
}
_FLOAT = ("Conv", "Gemm", "MatMul")  # with Q/DQ around them
_SELECT = MOVES | {"GlobalMaxPool", "Identity", "Expand", "Gather", "DepthToSpace", "Split"}
_TOP = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class IntegerLayer:
    """A Conv, Gemm or MatMul with a constant int8 weight and an 8-bit input.

    Attributes:
        node: It; with Q/DQ around it, or an integer operator.
        weight: int8, as the node reads it, past Transpose, Reshape and Cast.
        layout: Of ``weight``.
        is_depthwise: Whether each output channel reads one input channel, and each input channel feeds one.
        high: The largest value of its input, as the unsigned byte that kernels multiply: at most 255.
        dequantize: The weight's DequantizeLinear; None for an integer operator.
    """

    node: ir.Node
    weight: np.ndarray
    layout: Layout
    is_depthwise: bool
    high: int
    dequantize: ir.Node | None


def integer_layers(graph: ir.Graph) -> Iterator[IntegerLayer]:
    """Every layer of ``graph`` and its inner graphs that a CPU may multiply as unsigned by signed bytes, in order.

    Left out: unsigned weights and products of two activations (ONNX Runtime makes both operands unsigned, and such
    kernels add in 32 bits), weights beside a float input, and ConvTranspose (no integer kernel).
    """
    for node in ir.traversal.RecursiveGraphIterator(graph):
        if node.op_type in _FLOAT and node.domain in ("", "ai.onnx"):
            value, weight, dequantize = _quantized(node.inputs[0]), *_dequantized_weight(node.inputs[1])
            if value is None:
                continue
            high = _high(value)
        elif node.op_type in _INPUTS:
            source, stored = _INPUTS[node.op_type]
            weight, dequantize = _stored(node.inputs[stored]), None
            high = _TOP if node.op_type == "DynamicQuantizeMatMul" else _high(node.inputs[source])
        else:
            continue
        if weight is None or weight.dtype != np.int8 or not weight.size or weight.ndim < 2:
            continue
        yield IntegerLayer(
            node=node,
            weight=weight,
            layout=_layout(node),
            is_depthwise=_is_depthwise(node, weight),
            high=high,
            dequantize=dequantize,
        )


def lanes_of(layer: IntegerLayer, kernels: Kernels) -> tuple[int, ...]:
    """The orders in which ``kernels`` may read a layer's weights, as ``lanes`` of ``kernel_rows``."""
    return (1, 4) if kernels == "openvino" and layer.layout == "conv" and layer.weight.shape[1] % 4 else (1,)


def _layout(node: ir.Node) -> Layout:
    if "Conv" in node.op_type:
        return "conv"
    return "rows" if node.op_type in ("Gemm", "QGemm") and node.attributes.get_int("transB", 0) == 1 else "columns"


def _is_depthwise(node: ir.Node, weight: np.ndarray) -> bool:
    groups = int(node.attributes.get_int("group", 1))
    return "Conv" in node.op_type and weight.shape[1] == 1 and weight.shape[0] == groups


def _quantized(value: ir.Value | None) -> ir.Value | None:
    """The integers that ``value`` is dequantized from, past data movement; None where there are none."""
    node = value.producer() if value is not None else None
    while node is not None and node.op_type in MOVES and node.op_type != "Concat":
        value = node.inputs[0]
        node = value.producer() if value is not None else None
    if node is not None and node.op_type == "Concat":
        found = [_quantized(source) for source in node.inputs]
        return None if any(source is None for source in found) else max((s for s in found if s is not None), key=_high)
    return node.inputs[0] if node is not None and node.op_type == "DequantizeLinear" else None


def _dequantized_weight(value: ir.Value | None) -> tuple[np.ndarray | None, ir.Node | None]:
    """A weight's integers as its reader sees them, and its DequantizeLinear."""
    node = value.producer() if value is not None else None
    moves = []
    while node is not None and node.op_type in ("Transpose", "Reshape", "Identity"):
        moves.append(node)
        source = node.inputs[0]
        node = source.producer() if source is not None else None
    if node is None or node.op_type != "DequantizeLinear":
        return None, None
    weight = _stored(node.inputs[0])
    for move in reversed(moves):
        weight = None if weight is None else _moved(weight, move)
    return weight, node


def _stored(value: ir.Value | None) -> np.ndarray | None:
    """A constant of integers, past what moves or widens it: int4 becomes the int8 that is multiplied."""
    constant = array_of(value)
    node = value.producer() if value is not None else None
    if constant is None and node is not None and node.op_type in ("Cast", "Transpose", "Reshape", "Identity"):
        inner = _stored(node.inputs[0])
        constant = inner if inner is None or node.op_type == "Cast" else _moved(inner, node)
        if (
            constant is not None
            and node.op_type == "Cast"
            and node.attributes.get_int("to", 0) != ir.DataType.INT8.value
        ):
            return None
    if constant is None or constant.dtype == np.int8:
        return constant
    return constant.astype(np.int8) if constant.dtype.name == "int4" else constant


def _moved(array: np.ndarray, node: ir.Node) -> np.ndarray | None:
    if node.op_type == "Transpose":
        return array.transpose(node.attributes.get_ints("perm") or tuple(range(array.ndim))[::-1])
    if node.op_type == "Reshape":
        shape = array_of(node.inputs[1])
        return None if shape is None or 0 in shape else array.reshape(tuple(int(size) for size in shape))
    return array


def _high(value: ir.Value | None, depth: int = 64) -> int:
    """The largest unsigned byte that ``value`` can hold; signed ones are moved up by 128, as ONNX Runtime does on x86."""
    node = value.producer() if value is not None else None
    constant = array_of(value)
    if constant is not None and constant.dtype in (np.uint8, np.int8) and constant.size:
        return int(constant.max()) + (128 if constant.dtype == np.int8 else 0)
    if node is None or depth == 0:
        return _TOP
    if node.op_type == "QuantizeLinear":
        return _high_of_quantize(node)
    if node.op_type == "Concat":
        return max(_high(source, depth - 1) for source in node.inputs)
    if node.op_type == "Pad" and node.attributes.get_string("mode", "constant") == "constant":
        filler = node.inputs[2] if len(node.inputs) > 2 else None
        return max(_high(node.inputs[0], depth - 1), _TOP if filler is None else _high(filler, depth - 1))
    return _high(node.inputs[0], depth - 1) if node.op_type in _SELECT else _TOP


def _high_of_quantize(node: ir.Node) -> int:
    scale, zero = array_of(node.inputs[1]), array_of(node.inputs[2]) if len(node.inputs) > 2 else None
    bound = upper_bound(node.inputs[0])
    if scale is None or scale.size != 1 or not math.isfinite(bound) or (zero is not None and zero.size != 1):
        return _TOP
    point = 0 if zero is None else int(zero.reshape(-1)[0]) + (128 if zero.dtype == np.int8 else 0)
    # Kernels divide, or multiply by the inverse: a thousandth covers the difference. Zero padding reaches the zero point.
    steps = math.floor(max(bound, 0.0) / float(scale.reshape(-1)[0]) + 0.501)
    return min(_TOP, point + steps)
