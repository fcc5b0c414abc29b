"""A small language for graphs that are right, or wrong in one way: what the lint's corpus is written in."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper, shape_inference

FLOAT = TensorProto.FLOAT
_KINDS = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "float64": TensorProto.DOUBLE,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8,
    "bool": TensorProto.BOOL,
    "string": TensorProto.STRING,
}


class Net:
    """A graph in the making. Every node is named after its (first) output, so that findings are easy to write down."""

    def __init__(self, *, opset=20, ir_version=10, seed=0):
        self.rng = np.random.default_rng(seed)
        self.nodes, self.weights, self.inputs, self.domains = [], {}, [], set()
        self.opset, self.ir_version = opset, ir_version

    def input(self, name="x", shape=(1, 8, 8, 8), dtype="float32"):
        self.inputs.append(helper.make_tensor_value_info(name, _KINDS[dtype], list(shape)))
        return name

    def const(self, name, value):
        self.weights[name] = np.asarray(value)
        return name

    def op(self, kind, inputs, name, *, domain="", outputs=None, **attributes):
        if domain:
            self.domains.add(domain)
        outputs = [name] if outputs is None else outputs
        self.nodes.append(helper.make_node(kind, inputs, outputs, name, domain=domain, **attributes))
        return outputs[0]

    def q(self, source, name, *, scale=0.05, zero=0, dtype="int8", axis=None, with_zero=True, wide=None):
        """Quantize and dequantize an activation: nodes NAME_q and NAME (what readers read)."""
        scale = np.asarray(scale, wide or "float32")
        grid = [self.const(f"{name}_scale", scale)]
        if with_zero:
            grid.append(self.const(f"{name}_zero", np.full(scale.shape, zero).astype(dtype)))
        more = {} if axis is None else {"axis": axis}
        self.op("QuantizeLinear", [source, *grid], f"{name}_q", **more)
        return self.op("DequantizeLinear", [f"{name}_q", *grid], name, **more)

    def weight(
        self, name, shape, *, axis=0, per_channel=True, zero=None, values=None, scale=None, dtype="int8", top=63
    ):
        """A stored integer weight and its DequantizeLinear NAME.

        Args:
            zero: None gives it a zero point of its own, False none, a name shares that initializer.
            top: Weights lie within ±top; 63 keeps every runtime on every CPU from saturating.
        """
        values = self.rng.integers(-top, top + 1, shape).astype(dtype) if values is None else values
        count = shape[axis] if per_channel else None
        if scale is None:
            scale = np.float32(self.rng.uniform(0.002, 0.004, count))
        grid = [self.const(f"{name}_scale", np.asarray(scale, "float32"))]
        if zero is None:
            zero = self.const(f"{name}_zero", np.zeros(np.shape(scale), values.dtype))
        if zero is not False:
            grid.append(zero)
        more = {"axis": axis} if per_channel else {}
        return self.op("DequantizeLinear", [self.const(f"{name}_int", values), *grid], name, **more)

    def bias(self, name, count, *, step=None):
        """A float bias, or with ``step`` an int32 one on that step (a number or one per channel)."""
        values = self.rng.normal(size=count).astype("float32")
        if step is None:
            return self.const(name, values)
        step = np.broadcast_to(np.asarray(step, "float32"), count).copy()
        data = self.const(f"{name}_int", np.rint(values / step).astype("int32"))
        grid = [self.const(f"{name}_scale", step), self.const(f"{name}_zero", np.zeros(count, "int32"))]
        return self.op("DequantizeLinear", [data, *grid], name, axis=0)

    def conv(self, source, name, *, cin=8, cout=8, kernel=3, group=1, bias="float", step=None, weight=None, **more):
        """A quantized convolution: its weight is NAME_w, its bias NAME_b (``bias``: float, int32 or None).

        Args:
            step: The step of its input, for an int32 bias.
        """
        top = {k: more.pop(k) for k in tuple(more) if k in ("per_channel", "zero", "values", "scale", "axis", "top")}
        shape = (cout, cin // group, kernel, kernel)
        weight = weight or self.weight(f"{name}_w", shape, **top)
        inputs = [source, weight]
        if bias == "int32":
            inputs.append(self.bias(f"{name}_b", cout, step=step * self.weights[f"{name}_w_scale"]))
        elif bias:
            inputs.append(self.bias(f"{name}_b", cout))
        pads = [kernel // 2] * 4
        return self.op("Conv", inputs, name, pads=pads, group=group, kernel_shape=[kernel, kernel], **more)

    def float_conv(self, source, name, *, cin=8, cout=8, kernel=3, dtype="float32", values=None, **more):
        shape = (cout, cin, kernel, kernel)
        values = self.rng.normal(size=shape) * 0.1 if values is None else values
        weight = self.const(f"{name}_w", values.astype(dtype))
        return self.op("Conv", [source, weight], name, pads=[kernel // 2] * 4, kernel_shape=[kernel] * 2, **more)

    def linear(self, source, name, *, cin, cout=5, kind="Gemm", bias=None, step=None, **weight):
        """A quantized Gemm or MatMul on [N, cin], weight [cin, cout] per column."""
        inputs = [source, self.weight(f"{name}_w", (cin, cout), axis=1, **weight)]
        if bias == "int32":
            inputs.append(self.bias(f"{name}_b", cout, step=step * self.weights[f"{name}_w_scale"]))
        elif bias:
            inputs.append(self.bias(f"{name}_b", cout))
        return self.op(kind, inputs, name)

    def flat(self, source, name="flat"):
        return self.op("Flatten", [source], name)

    def model(self, *outputs, dtype="float32", shape=None):
        graph = helper.make_graph(
            self.nodes,
            "net",
            self.inputs,
            [helper.make_tensor_value_info(name, _KINDS[dtype], shape) for name in outputs],
            [numpy_helper.from_array(value, name) for name, value in self.weights.items()],
        )
        imports = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(d, 1) for d in sorted(self.domains))]
        model = helper.make_model(graph, opset_imports=imports, ir_version=self.ir_version)
        if shape is None:
            _infer_outputs(model)
        return model


def _infer_outputs(model):
    """Give the outputs the shapes that ONNX infers; where it cannot, as in a wrong graph, they have none."""
    try:
        found = {value.name: value for value in shape_inference.infer_shapes(model).graph.output}
    except Exception:  # noqa: BLE001 - an operator that is not there, types that contradict each other
        return
    for value in model.graph.output:
        value.CopyFrom(found[value.name])
