"""Small quantized nets, each with one thing that may keep its multiplication out of int8."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["Net", "conv_layer", "linear_layer"]


class Net:
    """A graph in the making: values, Q/DQ pairs, weights."""

    def __init__(self, shape=(1, 16, 12, 12), *, dtype="uint8", zero_point=128, opset=21):
        self.nodes, self.constants, self.shape, self.opset = [], [], shape, opset
        self.dtype, self.zero_point, self.rng = dtype, zero_point, np.random.default_rng(0)

    def constant(self, name, array):
        """A constant, once."""
        if name not in {tensor.name for tensor in self.constants}:
            self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def add(self, op, inputs, output, **attributes):
        """A node that is named as its output, with its operator in front as the exporter does."""
        self.nodes.append(helper.make_node(op, inputs, [output], f"{op}:{output}", **attributes))
        return output

    def grid(self, value, *, scale=0.05, dtype=None, zero_point=None):
        """``value`` through Q and DQ."""
        dtype = dtype or self.dtype
        zero_point = self.zero_point if zero_point is None else zero_point
        s = self.constant(f"{value}_scale", np.float32(scale))
        z = self.constant(f"{value}_zero_point", np.array(zero_point, dtype))
        return self.add(
            "DequantizeLinear", [self.add("QuantizeLinear", [value, s, z], f"{value}_q"), s, z], f"{value}_dq"
        )

    def weight(self, name, shape, *, axis=0, per_channel=True, zero_point=0, shared="", dtype="int8"):
        """An int8 weight behind its DequantizeLinear; ``shared``: the name of a zero point that others read too."""
        count = shape[axis] if per_channel else 1
        size = (count,) if per_channel else ()
        w = self.constant(name, self.rng.integers(-63, 64, shape).astype(dtype))
        s = self.constant(f"{name}_scale", np.full(size, 0.01, "float32"))
        z = self.constant(shared or f"{name}_zero_point", np.full(size, zero_point, dtype))
        return self.add("DequantizeLinear", [w, s, z], f"{name}_dq", **({"axis": axis} if per_channel else {}))

    def model(self, *outputs):
        """The finished model."""
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(self.shape))],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            self.constants,
        )
        opsets = [helper.make_opsetid("", self.opset)]
        return onnx.shape_inference.infer_shapes(helper.make_model(graph, opset_imports=opsets, ir_version=10))


def conv_layer(net, value, name, **options):
    """A 3×3 convolution of 16 channels on a quantized value; returns its float output."""
    weight = net.weight(f"{name}_weight", (16, 16, 3, 3), **options)
    return net.add("Conv", [value, weight], name, pads=[1, 1, 1, 1])


def linear_layer(net, value, name, **options):
    """A product with a weight of 16 by 16 on a quantized value."""
    return net.add("MatMul", [value, net.weight(f"{name}_weight", (16, 16), **({"axis": 1} | options))], name)
