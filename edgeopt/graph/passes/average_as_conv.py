"""Write a quantized average pool as a depthwise convolution with equal weights.

The mean over a window is a convolution whose weights are all 1/n: int8 ones with the scale 1/n, on the same input and
output grids. ONNX Runtime's quantized AveragePool goes through its windows one number at a time; the depthwise kernel
takes 64 channels at once: 398 µs against 24 for 3×3 windows over [1, 64, 32, 32].
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from edgeopt.graph.qdq import add_initializer

__all__ = ["AverageAsConv"]

_WINDOW_MAX = 25  # a global pool's window is the whole map: there ReduceMean is the faster one


class AverageAsConv(ir.passes.InPlacePass):
    """Q(AveragePool(DQ(q))) becomes Q(Conv(DQ(q), DQ(ones))); equal but for the last bit of the mean before rounding."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite every average pool whose divisor is its window's size everywhere."""
        modified = False
        for node in list(model.graph):
            if node.op_type == "AveragePool" and _is_plain(node) and _is_quantized(node):
                modified = _rewrite(model.graph, node) or modified
        return ir.passes.PassResult(model, modified)


def _is_plain(node: ir.Node) -> bool:
    attributes = node.attributes
    padded = any(attributes.get_ints("pads", ()) or ())
    return (
        attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
        and not attributes.get_int("ceil_mode", 0)  # the last window may be cut, and is divided by less
        and (not padded or bool(attributes.get_int("count_include_pad", 0)))
    )


def _is_quantized(node: ir.Node) -> bool:
    source = node.inputs[0].producer() if node.inputs[0] is not None else None
    readers = node.outputs[0].consumers()
    return (
        source is not None
        and source.op_type == "DequantizeLinear"
        and bool(readers)
        and not node.outputs[0].is_graph_output()
        and all(reader.op_type == "QuantizeLinear" for reader in readers)
    )


def _rewrite(graph: ir.Graph, node: ir.Node) -> bool:
    value = node.inputs[0]
    channels = _channels(value)
    kernel = tuple(node.attributes.get_ints("kernel_shape", ()) or ())
    if channels is None or channels < 2 or len(kernel) not in (1, 2) or math.prod(kernel) > _WINDOW_MAX:
        return False
    name = node.outputs[0].name
    ones = add_initializer(graph, f"{name}_ones", np.ones((channels, 1, *kernel), np.int8))
    scale = add_initializer(graph, f"{name}_share", np.array(1 / math.prod(kernel), np.float32))
    zero = add_initializer(graph, f"{name}_zero", np.array(0, np.int8))
    weight = ir.node("DequantizeLinear", [ones, scale, zero], num_outputs=1, name=f"{name}_ones_dq")
    weight.outputs[0].name = f"{name}_ones_dq"
    kept = [a for key, a in node.attributes.items() if key in ("kernel_shape", "strides", "pads", "dilations")]
    conv = ir.node("Conv", [value, weight.outputs[0]], {"group": channels}, num_outputs=1, name=node.name)
    for attribute in kept:
        conv.attributes[attribute.name] = attribute
    conv.metadata_props.update(node.metadata_props)
    graph.insert_before(node, [weight, conv])
    result, old = conv.outputs[0], node.outputs[0]
    result.shape, result.type = old.shape, old.type
    old.replace_all_uses_with(result)
    graph.remove(node, safe=True)
    result.name = name
    return True


def _channels(value: ir.Value | None) -> int | None:
    """The second dimension of ``value``, or of what was quantized to make it where its own shape is not recorded."""
    while value is not None:
        if value.shape is not None and len(value.shape) > 2:
            channels = value.shape[1]
            return channels if isinstance(channels, int) else None
        producer = value.producer()
        if producer is None or producer.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            return None
        value = producer.inputs[0]
    return None
