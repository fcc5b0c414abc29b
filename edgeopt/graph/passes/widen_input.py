"""Give a convolution's input a multiple of four channels: the added ones hold zero, and so do their weights.

ONNX Runtime's fast x86 convolution takes four channels per instruction (MLAS, convsym.cpp, ``MlasConvSymPackWSize``:
input channels and output channels multiples of 4, at least 16 outputs). A colour image has three, and its first
convolution falls back to copying every window into a matrix: 611 µs instead of 350 in EfficientNet-Lite0. The channel
is added to the integers, behind QuantizeLinear, as the zero point; the sums stay the same.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from edgeopt.graph.qdq import array_of, new_initializer, weighted_nodes

__all__ = ["WidenInput"]

_LANES = 4
_OUTPUTS_MIN = 16
_WIDE_WINDOW = 49


class WidenInput(ir.passes.InPlacePass):
    """Conv(DQ(q), DQ(W)) becomes Conv(DQ(Pad(q)), DQ(Pad(W))); values stay the same."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite every convolution of 3 (or 5, 6, 7 …) channels that is not grouped and slides over its input."""
        modified = False
        for node, weight, dequantize in list(weighted_nodes(model.graph)):
            if node.op_type == "Conv" and dequantize is not None and _gains(node, weight):
                modified = _widen(model.graph, node, weight, dequantize) or modified
        return ir.passes.PassResult(model, modified)


def _gains(node: ir.Node, weight: np.ndarray) -> bool:
    outputs, channels, *kernel = weight.shape
    return (
        node.attributes.get_int("group", 1) == 1
        and channels % _LANES != 0
        # One or two channels: the copied window is so narrow that the fast kernel would multiply zeros mostly.
        and channels * 2 > _LANES
        and outputs >= _OUTPUTS_MIN
        and outputs % _LANES == 0
        and any(size > 1 for size in kernel)
        # A 7 × 7 kernel on a photo: the window is wide enough to copy (1,019 µs against 1,055 with four channels).
        and (channels > _LANES or math.prod(kernel) < _WIDE_WINDOW)
    )


def _widen(graph: ir.Graph, node: ir.Node, weight: np.ndarray, dequantize_weight: ir.Node) -> bool:
    value = node.inputs[0]
    dequantize = value.producer() if value is not None else None
    if value is None or dequantize is None or dequantize.op_type != "DequantizeLinear":
        return False
    quantized, zero = dequantize.inputs[0], array_of(dequantize.inputs[2]) if len(dequantize.inputs) > 2 else None
    axis = dequantize_weight.attributes.get_int("axis", 1)
    if quantized is None or quantized.producer() is None or zero is None or zero.size != 1 or weight.dtype != np.int8:
        return False
    if axis % weight.ndim == 1 and array_of(dequantize_weight.inputs[1]).size > 1:  # type: ignore[union-attr]
        return False  # scales along the axis that would grow
    stored = dequantize_weight.inputs[0]
    if stored is None or dequantize_weight.outputs[0] is not node.inputs[1]:
        return False  # a Transpose stands between
    name, channels = node.outputs[0].name, weight.shape[1]
    extra = -channels % _LANES
    pads = np.zeros(2 * weight.ndim, np.int64)
    pads[weight.ndim + 1] = extra
    wide = np.pad(weight, [(0, 0), (0, extra), *[(0, 0)] * (weight.ndim - 2)])
    wide_value = new_initializer(graph, f"{name}_wide_weight", wide)
    own = ir.node(
        "DequantizeLinear", [wide_value, *dequantize_weight.inputs[1:]], dequantize_weight.attributes, num_outputs=1
    )
    own.name = own.outputs[0].name = f"{name}_wide_weight_dq"
    pad = ir.node(
        "Pad",
        [
            quantized,
            new_initializer(graph, f"{name}_wide_pads", pads),
            new_initializer(graph, f"{name}_wide_zero", zero.reshape(())),
        ],
        num_outputs=1,
    )
    pad.name = pad.outputs[0].name = f"{name}_wide"
    pad.outputs[0].type = quantized.type
    widened = ir.node(
        "DequantizeLinear", [pad.outputs[0], *dequantize.inputs[1:]], dequantize.attributes, num_outputs=1
    )
    widened.name = widened.outputs[0].name = f"{name}_wide_dq"
    widened.outputs[0].type = value.type
    graph.insert_before(node, [pad, widened, own])
    node.replace_input_with(0, widened.outputs[0])
    node.replace_input_with(1, own.outputs[0])
    graph.remove([n for n in (dequantize, dequantize_weight) if not _is_read(n)], safe=True)
    return True


def _is_read(node: ir.Node) -> bool:
    return bool(node.outputs[0].consumers()) or node.outputs[0].is_graph_output()
