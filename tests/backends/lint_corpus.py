"""The lint's corpus: small graphs, good and bad, and what every runtime's rules say of them.

What is expected stands in ``lint_corpus.json``: graph → runtime → ``RULE node``; a runtime that is not named finds
nothing. ``python tests/backends/lint_corpus.py`` writes it anew from the rules; ``test_lint_truth.py`` then holds it
to the real runtimes, so the file cannot be brought to agree with rules that are wrong.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from lint_nets import Net
from onnx import TensorProto, helper

EXPECTED = Path(__file__).with_suffix(".json")
CASES = {}
# The grids that runtimes like: symmetric int8; uint8 from 0 (behind Relu) and around 128; int8 from -128 (ARM).
SYM, U0, U128, ARM = {}, {"dtype": "uint8"}, {"dtype": "uint8", "zero": 128}, {"zero": -128}


def case(make):
    """Register a graph under its function's name."""
    CASES[make.__name__] = make
    return make


def variants(base, **changes):
    """Register a graph's variants: name → arguments of ``base``."""
    for name, arguments in changes.items():
        CASES[name] = lambda arguments=arguments: base(**arguments)


def classifier(
    inside=U0, outside=U128, bias="int32", out=True, middle=("Relu",), opset=20, reshape=True, first=None, **conv
):
    """Conv, activation, linear layer: the net of most cases."""
    net = Net(opset=opset)
    data = net.q(net.input(), "xq", **(outside | (first or {})))
    value = net.conv(data, "conv", bias=bias, step=0.05, **conv)
    for kind in middle:
        value = net.op(kind, [value], kind.lower())
    if out:
        value = net.q(value, "hq", **inside)
    flat = net.op("Reshape", [value, net.const("shape", np.array([0, -1]))], "flat") if reshape else net.flat(value)
    net.linear(flat, "fc", cin=512, bias=bias, step=0.05)
    return net.model("fc")


SYMMETRIC = {"inside": SYM, "outside": SYM, "bias": "float"}
variants(
    classifier,
    conv_symmetric=SYMMETRIC,
    conv_symmetric_no_relu=SYMMETRIC | {"middle": ()},
    conv_symmetric_int32_bias=SYMMETRIC | {"bias": "int32"},
    conv_symmetric_bias_on_other_step=SYMMETRIC | {"bias": "int32", "first": {"scale": 0.5}},
    conv_symmetric_no_bias=SYMMETRIC | {"bias": None, "middle": ()},
    conv_symmetric_per_tensor=SYMMETRIC | {"per_channel": False, "middle": ()},
    conv_symmetric_no_zero=SYMMETRIC | {"zero": False},
    conv_symmetric_minus_128=SYMMETRIC | {"values": np.full((8, 8, 3, 3), -128, "int8"), "middle": ()},
    conv_uint8={},
    conv_uint8_float_bias={"bias": "float"},
    conv_uint8_flatten={"reshape": False},
    conv_uint8_relu_unabsorbed={"inside": U128},
    conv_uint8_hard_swish={"inside": U128, "middle": ("HardSwish",)},
    conv_uint8_bias_on_other_step={"first": {"scale": 0.5}},
    conv_uint8_wide_weights={"top": 127},
    conv_arm={"inside": ARM, "outside": SYM},
    conv_zero_point_3=SYMMETRIC | {"first": {"zero": 3}},
    conv_scale_0=SYMMETRIC | {"first": {"scale": 0.0}},
    conv_scale_negative=SYMMETRIC | {"first": {"scale": -0.05}},
    conv_scale_nan=SYMMETRIC | {"first": {"scale": np.nan}},
    conv_axis_1=SYMMETRIC | {"axis": 1},
    conv_uint8_axis_1={"axis": 1, "bias": None},
    conv_int16={"inside": {"dtype": "int16"}, "outside": {"dtype": "int16"}, "bias": "float", "opset": 21},
    conv_opset_13=SYMMETRIC | {"opset": 13, "middle": ()},
)


@case
def conv_uint8_asymmetric_weight():
    net = Net()
    zero = net.const("wz", np.arange(8).astype("int8"))
    data = net.q(net.input(), "xq", **U128)
    return head(net, net.q(net.conv(data, "conv", bias=None, zero=zero), "hq", **U128))


@case
def conv_symmetric_asymmetric_weight():
    net = Net()
    zero = net.const("wz", np.arange(8).astype("int8"))
    data = net.q(net.input(), "xq")
    return head(net, net.q(net.conv(data, "conv", bias=None, zero=zero), "hq"))


@case
def conv_symmetric_weight_uint8():
    net = Net()
    zero = net.const("wz", np.full(8, 128, "uint8"))
    values = net.rng.integers(65, 192, (8, 8, 3, 3)).astype("uint8")
    data = net.q(net.input(), "xq")
    return head(net, net.q(net.conv(data, "conv", bias=None, zero=zero, values=values), "hq"))


@case
def conv_uint8_average_pool():
    net = Net()
    value = net.conv(net.q(net.input(), "xq", **U128), "conv", bias=None)
    value = net.op("AveragePool", [value], "pool", kernel_shape=[2, 2])
    return head(net, net.q(value, "hq", **U128))


def head(net, value):
    """One float operator behind the case, and the graph."""
    net.op("GlobalAveragePool", [value], "y")
    return net.model("y")


@case
def conv_float():
    net = Net()
    return head(net, net.op("Relu", [net.float_conv(net.input(), "conv")], "relu"))


@case
def conv_float_dynamic_batch():
    net = Net()
    return head(net, net.float_conv(net.input(shape=("batch", 8, 8, 8)), "conv"))


@case
def conv_symmetric_dynamic_batch():
    net = Net()
    return head(net, net.q(net.conv(net.q(net.input(shape=("batch", 8, 8, 8)), "xq"), "conv"), "hq"))


@case
def conv_float16():
    net = Net()
    half = net.op("Cast", [net.input()], "half", to=TensorProto.FLOAT16)
    value = net.float_conv(half, "conv", dtype="float16")
    net.op("Cast", [value], "y", to=TensorProto.FLOAT)
    return net.model("y")


@case
def conv_float64():
    net = Net()
    net.float_conv(net.input(dtype="float64"), "y", dtype="float64")
    return net.model("y", dtype="float64")


@case
def relu_bfloat16():
    net = Net(opset=20)
    value = net.op("Relu", [net.op("Cast", [net.input()], "cut", to=TensorProto.BFLOAT16)], "relu")
    net.op("Cast", [value], "y", to=TensorProto.FLOAT)
    return net.model("y")


@case
def conv_1d():
    net = Net()
    net.op("Conv", [net.input(shape=(1, 4, 16)), net.const("w", net.rng.normal(size=(6, 4, 3)).astype("float32"))], "y")
    return net.model("y")


@case
def conv_4d():
    net = Net()
    net.op("Conv", [net.input(shape=(1, 2, 3, 3, 3, 3)), net.const("w", np.ones((2, 2, 1, 1, 1, 1), "float32"))], "y")
    return net.model("y")


@case
def conv_weight_nan():
    net = Net()
    values = net.rng.normal(size=(8, 8, 3, 3))
    values[0, 0, 0, 0] = np.nan
    return head(net, net.float_conv(net.input(), "conv", values=values))


@case
def conv_float_weight():
    net = Net()
    return head(net, net.float_conv(net.q(net.input(), "xq"), "conv"))


@case
def conv_weight_only():
    net = Net()
    return head(net, net.conv(net.input(), "conv"))


@case
def conv_uneven_channels():
    net = Net()
    values = net.rng.integers(-63, 64, (8, 8, 3, 3)).astype("int8")
    values[2:5] //= 32
    weight = {"per_channel": False, "values": values}
    return head(net, net.q(net.conv(net.q(net.input(), "xq"), "conv", **weight), "hq"))


@case
def conv_activation_per_channel():
    net = Net()
    return head(net, net.conv(net.q(net.input(), "xq", scale=np.linspace(0.03, 0.06, 8), axis=1), "conv"))


@case
def conv_uint8_activation_per_channel():
    net = Net()
    data = net.q(net.input(), "xq", scale=np.linspace(0.03, 0.06, 8), axis=1, **U128)
    return head(net, net.q(net.conv(data, "conv", bias=None), "hq", **U128))


@case
def conv_uint8_output_not_quantized():
    net = Net()
    return head(net, net.conv(net.q(net.input(), "xq", **U128), "conv", bias="int32", step=0.05))


@case
def conv_uint8_two_readers():
    net = Net()
    value = net.conv(net.q(net.input(), "xq", **U128), "conv", bias=None)
    net.op("GlobalMaxPool", [value], "z")
    head(net, net.q(value, "hq", **U128))
    return net.model("y", "z")


@case
def conv_uint8_computed_bias():
    net = Net()
    data, bias = net.q(net.input(), "xq", **U128), net.input("bias", (8,))
    value = net.op("Conv", [data, net.weight("conv_w", (8, 8, 3, 3)), bias], "conv", pads=[1] * 4)
    return head(net, net.q(value, "hq", **U128))


@case
def conv_uint8_weight_uint8():
    net = Net()
    values, zero = net.rng.integers(65, 190, (8, 8, 3, 3)).astype("uint8"), net.const("wz", np.uint8(128))
    weight = {"per_channel": False, "values": values, "zero": zero}
    return head(net, net.q(net.conv(net.q(net.input(), "xq", **U128), "conv", bias=None, **weight), "hq", **U128))


def clipped(scale):
    net = Net()
    value = net.conv(net.q(net.input(), "xq", **U128), "conv", bias="int32", step=0.05)
    bounds = [net.const("low", np.float32(0)), net.const("high", np.float32(6))]
    return head(net, net.q(net.op("Clip", [value, *bounds], "clip"), "hq", scale=scale, **U0))


variants(clipped, conv_uint8_relu6={"scale": 0.0235}, conv_uint8_relu6_wide={"scale": 0.05})


def pooled(kinds, grid, outside):
    net = Net()
    value = net.conv(net.q(net.input(), "xq", **outside), "conv", bias=None)
    for kind in kinds:
        more = {"kernel_shape": [2, 2]} if kind == "MaxPool" else {}
        value = net.op(kind, [value], kind.lower(), **more)
    return head(net, net.q(value, "hq", **grid))


variants(
    pooled,
    conv_uint8_relu_max_pool={"kinds": ("Relu", "MaxPool"), "grid": U0, "outside": U128},
    conv_uint8_max_pool_relu={"kinds": ("MaxPool", "Relu"), "grid": U0, "outside": U128},
    conv_symmetric_max_pool={"kinds": ("MaxPool",), "grid": SYM, "outside": SYM},
    conv_symmetric_relu_max_pool={"kinds": ("Relu", "MaxPool"), "grid": SYM, "outside": SYM},
)


def residual(outside, inside, bias, both):
    net = Net()
    like = {"bias": bias, "step": 0.05}
    data = net.q(net.input(), "xq", **outside)
    first = net.q(net.op("Relu", [net.conv(data, "c1", **like)], "r1"), "hq", **inside)
    second = net.conv(first, "c2", **like)
    added = net.op("Add", [net.q(second, "dq", **outside) if both else second, data], "add")
    value = net.conv(net.q(net.op("Relu", [added], "r2"), "zq", **inside), "c3", **like)
    return head(net, net.q(value, "eq", **outside))


variants(
    residual,
    residual_symmetric_skip={"outside": SYM, "inside": SYM, "bias": "float", "both": False},
    residual_uint8={"outside": U128, "inside": U0, "bias": "int32", "both": True},
    residual_uint8_one_side={"outside": U128, "inside": U0, "bias": "int32", "both": False},
    residual_arm={"outside": SYM, "inside": ARM, "bias": "int32", "both": True},
)


def depthwise(outside, inside, bias):
    net = Net()
    value = net.conv(net.q(net.input(), "xq", **outside), "dw", group=8, bias=bias, step=0.05)
    value = net.conv(net.q(net.op("Relu", [value], "relu"), "hq", **inside), "pw", kernel=1, bias=bias, step=0.05)
    return head(net, net.q(value, "eq", **outside))


variants(
    depthwise,
    depthwise_symmetric={"outside": SYM, "inside": SYM, "bias": "float"},
    depthwise_uint8={"outside": U128, "inside": U0, "bias": "int32"},
)


@case
def branch_symmetric():
    net = Net()
    data = net.q(net.conv(net.q(net.input(), "xq"), "a", bias=None), "aq")
    return head(net, net.op("Add", [net.conv(data, "b", bias=None), net.conv(data, "c", bias=None)], "add"))


@case
def concat_uint8():
    net = Net()
    data = net.q(net.input(), "xq", **U128)
    sides = [net.q(net.conv(data, side, bias=None), f"{side}q", **U128) for side in ("a", "b")]
    value = net.q(net.op("Concat", sides, "cat", axis=1), "cq", **U128)
    return head(net, net.q(net.conv(value, "c", cin=16, bias=None), "eq", **U128))


def linear(
    kind="Gemm", grid=U128, bias=None, out=False, add=False, shape=(4, 16), act="Sigmoid", turned=False, **weight
):
    net = Net()
    data = net.q(net.input(shape=shape), "xq", **grid)
    if turned:
        stored = net.weight("fc_w", (16, 16), axis=0, **weight)
        value = net.op("MatMul", [data, net.op("Transpose", [stored], "wt", perm=[1, 0])], "fc")
    else:
        value = net.linear(data, "fc", cin=16, cout=16, kind=kind, bias=bias, step=0.05, **weight)
    if add:
        value = net.op("Add", [value, net.bias("b", 16)], "add")
    if out:
        value = net.q(value, "hq", **grid)
    net.op(act, [value], "y")
    return net.model("y")


variants(
    linear,
    gemm_symmetric={"grid": SYM},
    gemm_uint8={},
    gemm_uint8_no_zero={"zero": False},
    gemm_uint8_float_bias={"bias": "float"},
    gemm_uint8_float_bias_quantized={"bias": "float", "out": True},
    gemm_uint8_int32_bias={"bias": "int32"},
    matmul_symmetric={"kind": "MatMul", "grid": SYM},
    matmul_uint8={"kind": "MatMul"},
    matmul_uint8_no_zero={"kind": "MatMul", "zero": False},
    matmul_uint8_add={"kind": "MatMul", "add": True},
    matmul_uint8_add_quantized={"kind": "MatMul", "add": True, "out": True},
    matmul_uint8_3d_add={"kind": "MatMul", "add": True, "shape": (1, 7, 16)},
    matmul_uint8_3d_dynamic_add={"kind": "MatMul", "add": True, "shape": ("batch", 7, 16)},
    matmul_uint8_3d_dynamic_turned={"turned": True, "add": True, "shape": ("batch", 7, 16)},
    matmul_uint8_turned={"turned": True},
)


def summed_axis(kind):
    net = Net()
    data = net.q(net.input(shape=(4, 16)), "xq")
    net.op(kind, [data, net.weight("fc_w", (16, 16), axis=0)], "fc")
    net.op("Sigmoid", ["fc"], "y")
    return net.model("y")


variants(summed_axis, gemm_summed_axis={"kind": "Gemm"}, matmul_summed_axis={"kind": "MatMul"})


def attention(left, right):
    net = Net()
    query = net.q(net.input(shape=(1, 8, 16)), "qq", **left)
    key = net.q(net.input("k", (1, 16, 8)), "kq", **right)
    net.op("Softmax", [net.op("MatMul", [query, key], "scores")], "y")
    return net.model("y")


variants(
    attention,
    attention_symmetric={"left": SYM, "right": SYM},
    attention_uint8={"left": U128, "right": U128},
)


@case
def transformer_float():
    net = Net()
    value = net.input(shape=(1, 7, 16))
    norm = [net.const("scale", np.ones(16, "float32")), net.const("shift", np.zeros(16, "float32"))]
    value = net.op("LayerNormalization", [value, *norm], "ln")
    value = net.op("MatMul", [value, net.const("w", net.rng.normal(size=(16, 16)).astype("float32"))], "mm")
    net.op("Gelu", [value], "y")
    return net.model("y")


@case
def gru_float():
    net = Net()
    weights = [net.const(n, net.rng.normal(size=(1, 18, k)).astype("float32")) for n, k in (("w", 4), ("r", 6))]
    net.op("GRU", [net.input(shape=(5, 1, 4)), *weights], "y", hidden_size=6, linear_before_reset=1)
    return net.model("y")


@case
def embedding():
    net = Net()
    table = net.const("table", net.rng.normal(size=(7, 4)).astype("float32"))
    net.op("Gather", [table, net.input(shape=(3,), dtype="int64")], "y")
    return net.model("y")


@case
def weight_in_blocks():
    import ml_dtypes

    net = Net(opset=21)
    stored = net.const("w_int", net.rng.integers(-7, 8, (64, 16)).astype(ml_dtypes.int4))
    weight = net.op(
        "DequantizeLinear", [stored, net.const("s", np.full((2, 16), 0.01, "float32"))], "w", axis=0, block_size=32
    )
    net.op("MatMul", [net.input(shape=(1, 64)), weight], "y")
    return net.model("y")


@case
def shared_zero_point():
    net = Net()
    zero = net.const("zero", np.zeros(8, "int8"))
    value = net.q(net.conv(net.q(net.input(), "xq"), "conv", bias=None, zero=zero), "hq")
    flat = net.op("Reshape", [value, net.const("shape", np.array([0, -1]))], "flat")
    net.linear(flat, "fc", cin=512, cout=8, zero=zero)
    return net.model("fc")


@case
def shared_weight_both_ways():
    net = Net()
    weight = net.weight("w", (16, 16), axis=0, per_channel=False)
    data = net.q(net.input(shape=(4, 16)), "xq")
    there = net.q(net.op("Gemm", [data, weight], "there", transB=1), "hq")
    net.op("Sigmoid", [net.op("Gemm", [there, weight], "back")], "y")
    return net.model("y")


@case
def shared_float_weight_both_ways():
    net = Net()
    weight = net.const("w", net.rng.normal(size=(16, 16)).astype("float32"))
    there = net.op("Gemm", [net.input(shape=(4, 16)), weight], "there", transB=1)
    net.op("Sigmoid", [net.op("Gemm", [there, weight], "back")], "y")
    return net.model("y")


@case
def expanded_token():
    net = Net()
    data = net.input(shape=("batch", 8, 4, 4))
    value = net.conv(net.q(data, "xq"), "conv", cout=16, kernel=1)
    value = net.op("Reshape", [value, net.const("rows", np.array([0, 16, 16]))], "rows_out")
    value = net.op("Transpose", [value], "tokens", perm=[0, 2, 1])
    count = net.op("Gather", [net.op("Shape", [data], "shape"), net.const("first", np.array([0]))], "count")
    size = net.op("Concat", [count, net.const("rest", np.array([1, 16]))], "size", axis=0)
    token = net.op("Expand", [net.const("token", net.rng.normal(size=(1, 1, 16)).astype("float32")), size], "expand")
    value = net.q(net.op("Concat", [token, value], "all", axis=1), "hq")
    net.op("Softmax", [net.linear(value, "fc", cin=16, cout=16, kind="MatMul")], "y")
    return net.model("y")


def deconvolution(grid, axis):
    net = Net()
    data = net.q(net.input(), "xq", **grid)
    value = net.op("ConvTranspose", [data, net.weight("up_w", (8, 16, 2, 2), axis=axis)], "up", kernel_shape=[2, 2])
    return head(net, value)


variants(
    deconvolution,
    deconvolution_symmetric={"grid": SYM, "axis": 1},
    deconvolution_uint8={"grid": U128, "axis": 1},
    deconvolution_axis_0={"grid": SYM, "axis": 0},
)


@case
def deconvolution_float():
    net = Net()
    weight = net.const("w", net.rng.normal(size=(8, 4, 2, 2)).astype("float32"))
    net.op("ConvTranspose", [net.input(), weight], "y", kernel_shape=[2, 2])
    return net.model("y")


@case
def dynamically_quantized():
    net = Net()
    net.op("DynamicQuantizeLinear", [net.input()], "dq", outputs=["q", "s", "z"])
    net.op("DequantizeLinear", ["q", "s", "z"], "y")
    return net.model("y")


@case
def qlinear_conv():
    net = Net()
    scale, zero = net.const("s", np.float32(0.05)), net.const("z", np.uint8(128))
    weight = [
        net.const("w", net.rng.integers(-63, 64, (8, 8, 3, 3)).astype("int8")),
        scale,
        net.const("wz", np.int8(0)),
    ]
    net.op("QLinearConv", [net.input(dtype="uint8"), scale, zero, *weight, scale, zero], "q")
    net.op("DequantizeLinear", ["q", scale, zero], "y")
    return net.model("y")


def one(
    kind, shape=(1, 8, 8, 8), domain="", opset=20, consts=(), dtype="float32", outputs=None, out="float32", **attributes
):
    """A graph of one operator, its parameters as constants."""
    net = Net(opset=opset)
    inputs = [net.input(shape=shape, dtype=dtype), *(net.const(f"c{i}", value) for i, value in enumerate(consts))]
    net.op(kind, inputs, "y", domain=domain, outputs=outputs, **attributes)
    return net.model("y", dtype=out)


variants(
    one,
    op_custom={"kind": "Mystery", "domain": "ai.example"},
    op_microsoft_gelu={"kind": "Gelu", "domain": "com.microsoft"},
    op_unknown={"kind": "Mystery"},
    op_newer_than_opset={"kind": "Gelu", "opset": 18},
    op_det={"kind": "Det"},
    op_unique={"kind": "Unique", "shape": (4,)},
    op_non_zero={"kind": "NonZero", "out": "int64"},
    op_resize={"kind": "Resize", "consts": (np.array([], "float32"), np.array([1, 1, 2, 2], "float32"))},
    op_pad_wrap={"kind": "Pad", "consts": (np.array([0, 0, 1, 1, 0, 0, 1, 1]),), "mode": "wrap"},
    op_max_pool_indices={"kind": "MaxPool", "outputs": ["y", "places"], "kernel_shape": [2, 2]},
    op_max_pool_dilated={"kind": "MaxPool", "kernel_shape": [2, 2], "dilations": [2, 2]},
    op_lp_pool_3={"kind": "LpPool", "kernel_shape": [2, 2], "p": 3},
    op_opset_23={"kind": "Relu", "opset": 23},
    op_opset_8={"kind": "Relu", "opset": 8},
    op_opset_99={"kind": "Relu", "opset": 99},
    op_varying_size={"kind": "Relu", "shape": ("batch", 8, "height", 8)},
    op_large_batch={"kind": "Relu", "shape": (5000, 1, 2, 2)},
    op_large_dimension={"kind": "Relu", "shape": (1, 1, 1, 9000)},
)


@case
def conv_float_two_samples():
    net = Net()
    weight = net.const("w", net.rng.normal(size=(8, 8, 3, 3)).astype("float32"))
    net.op("Conv", [net.input(shape=(2, 8, 8, 8)), weight], "conv", kernel_shape=[3, 3])
    net.op("Relu", ["conv"], "y")
    return net.model("y")


@case
def op_softplus_between():
    """More returns from a GPU than a DLA holds loadables at once."""
    net = Net()
    value = net.input()
    for index in range(17):
        value = net.op("Relu", [value], f"relu{index}")
        value = net.op("Softplus", [value], f"soft{index}")
    net.op("Relu", [value], "y")
    return net.model("y")


@case
def types_mixed():
    net = Net()
    data = net.input()
    net.op("Add", [net.op("Cast", [data], "half", to=TensorProto.FLOAT16), data], "y")
    return net.model("y")


@case
def layout_there_and_back():
    net = Net()
    value = net.op("Transpose", [net.float_conv(net.input(), "c1")], "last", perm=[0, 2, 3, 1])
    norm = [net.const("scale", np.ones(8, "float32")), net.const("shift", np.zeros(8, "float32"))]
    value = net.op("LayerNormalization", [value, *norm], "ln")
    return head(net, net.float_conv(net.op("Transpose", [value], "first", perm=[0, 3, 1, 2]), "c2"))


@case
def branch_with_det():
    net = Net()
    bodies = [
        helper.make_graph(
            [helper.make_node(kind, ["x"], [f"{kind}_out"], kind)],
            kind,
            [],
            [helper.make_tensor_value_info(f"{kind}_out", TensorProto.FLOAT, None)],
        )
        for kind in ("Det", "ReduceSum")
    ]
    net.input(shape=(1, 8, 8))
    net.op("If", [net.const("yes", np.array(True))], "y", then_branch=bodies[0], else_branch=bodies[1])
    return net.model("y", shape=())


def findings(model, folder):
    """Runtime → ``RULE node`` of everything that its rules find, notes too."""
    from lint_runtimes import RUNTIMES

    from edgeopt.backends.graphs import read_graph
    from edgeopt.backends.lint import lint

    path = Path(folder) / "model.onnx"
    onnx.save(model, path)
    read = read_graph(path)
    found = {name: lint(read, rules, target) for name, (rules, target) in RUNTIMES.items()}
    return {name: [f"{f.rule} {f.node or '-'}" for f in rows] for name, rows in found.items() if rows}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        made = {name: findings(make(), scratch) for name, make in sorted(CASES.items())}
    lines = [f"{json.dumps(name)}: {json.dumps(found)}" for name, found in made.items()]
    EXPECTED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    sys.stdout.write(f"{len(made)} graphs\n")
