"""Small nets, built here, for every backend test."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeopt.targets.schema import RuntimeRules, Target


def _save(nodes, inputs, outputs, weights, opset=20):
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs],
        [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return model


def conv_net(batch="batch"):
    """Convolution, ReLU, linear layer: float."""
    rng = np.random.default_rng(1)
    weights = {
        "w": rng.normal(size=(8, 3, 3, 3)).astype("float32") * 0.2,
        "b": rng.normal(size=8).astype("float32"),
        "f": rng.normal(size=(8 * 36, 5)).astype("float32") * 0.1,
        "g": rng.normal(size=5).astype("float32"),
        "shape": np.array([0, -1], "int64"),
    }
    nodes = [
        helper.make_node("Conv", ["image", "w", "b"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("Reshape", ["r", "shape"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "f", "g"], ["logits"], "gemm"),
    ]
    image = ("image", TensorProto.FLOAT, [batch, 3, 6, 6])
    return _save(nodes, [image], [("logits", TensorProto.FLOAT, [batch, 5])], weights)


def quantized_net(batch="batch", *, dtype="int8", zero_point=0, opset=20, weight_axis=0, activation_scale=0.03):
    """The same shape of net with explicit Q/DQ: weights per channel, activations per tensor.

    The weights have 7 bits: on x86 without VNNI, 8-bit weights saturate and no oracle would agree.
    """
    rng = np.random.default_rng(2)
    channels = (8, 3)[weight_axis]
    weights = {
        "w": rng.integers(-63, 64, (8, 3, 3, 3)).astype("int8"),
        "ws": rng.uniform(0.001, 0.003, channels).astype("float32"),
        "wz": np.zeros(channels, "int8"),
        "b": rng.normal(size=8).astype("float32"),
        "f": rng.integers(-63, 64, (8 * 36, 5)).astype("int8"),
        "fs": rng.uniform(0.001, 0.003, 5).astype("float32"),
        "fz": np.zeros(5, "int8"),
        "g": rng.normal(size=5).astype("float32"),
        "xs": np.float32(activation_scale),
        "xz": np.array(zero_point, dtype),
        "hs": np.float32(activation_scale),
        "hz": np.array(zero_point, dtype),
        "shape": np.array([0, -1], "int64"),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "xs", "xz"], ["xq"], "quantize_image"),
        helper.make_node("DequantizeLinear", ["xq", "xs", "xz"], ["xd"], "dequantize_image"),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], "dequantize_w", axis=weight_axis),
        helper.make_node("Conv", ["xd", "wd", "b"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("QuantizeLinear", ["r", "hs", "hz"], ["rq"], "quantize_hidden"),
        helper.make_node("DequantizeLinear", ["rq", "hs", "hz"], ["rd"], "dequantize_hidden"),
        helper.make_node("Reshape", ["rd", "shape"], ["flat"], "flatten"),
        helper.make_node("DequantizeLinear", ["f", "fs", "fz"], ["fd"], "dequantize_f", axis=1),
        helper.make_node("Gemm", ["flat", "fd", "g"], ["logits"], "gemm"),
    ]
    image = ("image", TensorProto.FLOAT, [batch, 3, 6, 6])
    return _save(nodes, [image], [("logits", TensorProto.FLOAT, [batch, 5])], weights, opset)


def two_input_net(batch="batch"):
    """Two inputs of different dtypes and two outputs of different dtypes, declared in no alphabetical order."""
    rng = np.random.default_rng(3)
    weights = {"table": rng.normal(size=(7, 4)).astype("float32"), "w": rng.normal(size=(4, 4)).astype("float32")}
    nodes = [
        helper.make_node("Gather", ["table", "token"], ["e"], "embed"),
        helper.make_node("MatMul", ["dense", "w"], ["d"], "matmul"),
        helper.make_node("Add", ["e", "d"], ["sum"], "add"),
        helper.make_node("Cast", ["token"], ["echo"], "cast", to=TensorProto.INT32),
    ]
    inputs = [("token", TensorProto.INT64, [batch]), ("dense", TensorProto.FLOAT, [batch, 4])]
    outputs = [("sum", TensorProto.FLOAT, [batch, 4]), ("echo", TensorProto.INT32, [batch])]
    return _save(nodes, inputs, outputs, weights)


def half_net(batch="batch"):
    """Float16 inside, float32 outside: what the conversion to float16 makes."""
    rng = np.random.default_rng(4)
    weights = {"w": rng.normal(size=(6, 4)).astype("float16"), "b": rng.normal(size=4).astype("float16")}
    nodes = [
        helper.make_node("Cast", ["x"], ["h"], "in", to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["h", "w"], ["m"], "matmul"),
        helper.make_node("Add", ["m", "b"], ["a"], "add"),
        helper.make_node("Cast", ["a"], ["y"], "out", to=TensorProto.FLOAT),
    ]
    x, y = ("x", TensorProto.FLOAT, [batch, 6]), ("y", TensorProto.FLOAT, [batch, 4])
    return _save(nodes, [x], [y], weights)


def make_rules(name, **changes):
    """Rules that allow everything this room's nets need."""
    return RuntimeRules.model_validate(
        {"name": name, "dialect": "any", "versions": ">=0", "precisions": ["fp32", "int8"], "opset_max": 21} | changes
    )


def make_target(name="bench", *, rules=None, **changes):
    """A target that only its compute capability sets apart."""
    return Target.model_validate(
        {
            "schema_version": 1,
            "name": name,
            "title": name,
            "isa": {"arch": "x86_64"},
            "runtimes": [rules or make_rules("onnxruntime")],
            "quantization": {"quantized_ops": ["conv", "linear"], "residual_add": "none"},
            "default_recipe": "fp32",
            "float_recipe": "fp32",
            "sources": [{"fact": "made for tests", "source": "this file"}],
        }
        | changes
    )


@pytest.fixture
def save(tmp_path):
    """Write a model to a file of its own and return the path."""

    def write(model, name="graph.onnx") -> Path:
        path = tmp_path / name
        onnx.save(model, path)
        return path

    return write


@pytest.fixture
def empty(tmp_path):
    """A maker of empty folders."""

    def make(name="engine") -> Path:
        path = tmp_path / name
        path.mkdir()
        return path

    return make
