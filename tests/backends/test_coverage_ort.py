"""ONNX Runtime's coverage: the runtime is the oracle, and each cause goes away with its fix."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from backend_nets import conv_net, make_rules, make_target, quantized_net
from coverage_nets import Net, conv_layer, linear_layer
from onnx import helper

from edgeopt.backends.coverage import ort as ort_room
from edgeopt.backends.registry import BACKENDS
from edgeopt.core.errors import BackendError
from edgeopt.graph.dialects import apply_dialect

pytest.importorskip("onnxruntime", reason="pip install 'edgeopt[onnxruntime]'")


def coverage_of(save, empty, model, backend="onnxruntime", name="engine", arch="x86_64", **options):
    rules, target = make_rules(backend, options=options, opset_max=22), make_target(isa={"arch": arch})
    return BACKENDS[backend].compile(save(model, f"{name}.onnx"), target, rules, empty(name), 1).coverage


def one(coverage, node):
    return next(op for op in coverage.ops if op.node == node)


def first_conv(*, act="", end="grid", dtype="uint8", zero_point=128, behind=None, top=0.02, opset=21):
    """A convolution, what follows it, and a grid; ``behind``: that grid's zero point."""
    net = Net(dtype=dtype, zero_point=zero_point, opset=opset)
    value = conv_layer(net, net.grid("x"), "c")
    if act == "Clip":
        value = net.add("Clip", [value, net.constant("low", np.float32(0)), net.constant("high", np.float32(6))], "a")
    elif act:
        value = net.add(act, [value], "a")
    return net.model(value if end == "output" else net.grid(value, zero_point=behind, scale=top))


def conv_read_twice(*, in_float):
    net = Net()
    value = conv_layer(net, net.grid("x"), "c")
    gridded = net.grid(value)
    return net.model(
        net.add("Add", [value if in_float else gridded, gridded], "sum"),
    )


def conv_on_two_grids(*, shared):
    net = Net()
    value = conv_layer(net, net.grid("x"), "c")
    first = net.grid(value)
    if shared:
        return net.model(net.add("Add", [first, first], "sum"))
    scale = net.constant("s2", np.float32(0.1))
    quantized = net.add("QuantizeLinear", [value, scale, "c_zero_point"], "c_q2")
    second = net.add("DequantizeLinear", [quantized, scale, "c_zero_point"], "c_dq2")
    return net.model(net.add("Add", [first, second], "sum"))


def gemm(*, bias="none", quantize=True, **attributes):
    net = Net(shape=(4, 16))
    inputs = [net.grid("x"), net.weight("w", (16, 16), axis=1)]
    if bias == "float":
        inputs.append(net.constant("b", np.ones(16, "float32")))
    elif bias == "int32":
        scale = net.constant("b_scale", np.full(16, 0.05 * 0.01, "float32"))
        stored, zero = net.constant("b", np.ones(16, "int32")), net.constant("b_zero", np.zeros(16, "int32"))
        inputs.append(net.add("DequantizeLinear", [stored, scale, zero], "b_dq", axis=0))
    value = net.add("Gemm", inputs, "c", **attributes)
    return net.model(net.grid(value) if quantize else value)


def transposed(*, dtype="uint8", zero_point=128, axis=1):
    net = Net(dtype=dtype, zero_point=zero_point)
    value = net.add("ConvTranspose", [net.grid("x"), net.weight("t", (16, 16, 3, 3), axis=axis)], "c", pads=[1] * 4)
    return net.model(net.grid(value))


def product(*chain, grid=None):
    """A product, what follows it, and a product in float; ``grid``: a zero point in front of that."""
    net = Net(shape=(1, 16))
    value = linear_layer(net, net.grid("x"), "c")
    for op in chain:
        inputs = [value, net.constant("bias", np.ones(16, "float32"))] if op == "Add" else [value]
        value = net.add(op, inputs, op.lower())
    value = value if grid is None else net.grid(value, zero_point=grid)
    return net.model(net.add("MatMul", [value, net.constant("w", np.ones((16, 4), "float32"))], "y"))


CASES = {
    "nothing behind": (
        "Conv:c", first_conv(end="output"), first_conv(), "No QuantizeLinear follows it", "Quantize its output"
    ),
    "swish in between": (
        "Conv:c", first_conv(act="HardSwish"), first_conv(), "HardSwish stands between", "before HardSwish"
    ),
    "sigmoid in between": (
        "Conv:c", first_conv(act="Sigmoid"), first_conv(), "Sigmoid stands", "Sigmoid"
    ),
    "a mean in between": (
        "Conv:c", first_conv(act="GlobalAveragePool"), first_conv(), "GlobalAveragePool stands between", "Quantize what"
    ),
    "a grid below zero behind Relu": (
        "Conv:c", first_conv(act="Relu"), first_conv(act="Relu", behind=0), "Relu stands between it and a grid", "ort-x86"
    ),
    "symmetric int8 behind Relu": (
        "Conv:c",
        first_conv(act="Relu", dtype="int8", zero_point=0),
        first_conv(act="Relu", dtype="int8", zero_point=0, behind=-128),
        r"goes below zero \(int8, zero point 0\)",
        "-128 of int8",
    ),
    "a grid above ReLU6": (
        "Conv:c",
        first_conv(act="Clip", behind=0, top=0.1),
        first_conv(act="Clip", behind=0, top=0.0235),
        "Clip cuts at 6, inside the grid",
        "end at 6",
    ),
    "16 bits": (
        "Conv:c",
        first_conv(dtype="int16", zero_point=0),
        first_conv(dtype="int8", zero_point=0),
        "Its input is quantized to int16",
        "8 bits",
    ),
    "read in float too": (
        "Conv:c", conv_read_twice(in_float=True), conv_read_twice(in_float=False), "Add read its output in float", "share|every"
    ),
    "two grids": (
        "Conv:c", conv_on_two_grids(shared=False), conv_on_two_grids(shared=True), "Two QuantizeLinear", "share one"
    ),
    "a float bias that ends in float": (
        "Gemm:c",
        gemm(bias="float", quantize=False),
        gemm(bias="int32", quantize=False),
        "Its bias is float and no QuantizeLinear",
        "Quantize the bias to int32",
    ),
    "a product with Relu and no grid behind it": (
        "MatMul:c", product("Relu"), product("Relu", grid=0), "Relu follows it and no QuantizeLinear", "grid from zero on"
    ),
    "a product that is joined with an Add": (
        "MatMul:c", product("Add"), product("Add", grid=128), "joins it with the Add behind it", "what the Add gives"
    ),
    "alpha": ("Gemm:c", gemm(bias="int32", alpha=2.0), gemm(bias="int32"), "It has a bias, and alpha 2", "weight and bias"),
    "transposed": ("ConvTranspose:c", transposed(), None, "no int8 ConvTranspose", "Resize and Conv"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_breaks_the_pattern_is_named_and_its_fix_brings_the_node_into_int8(save, empty, case):
    node, bad, good, cause, fix = CASES[case]
    found = one(coverage_of(save, empty, bad, name="bad"), node)
    assert found.runs_in == "float32"
    assert re.search(cause, found.cause), found.cause
    assert re.search(fix, found.fix), found.fix
    if good is not None:
        repaired = one(coverage_of(save, empty, good, name="good"), node)
        assert (repaired.runs_in, repaired.cause, repaired.fix) == ("int8", "", "")


def test_a_low_optimization_level_is_named(save, empty):
    found = coverage_of(save, empty, first_conv(), graph_optimization_level="basic")
    assert one(found, "Conv:c").runs_in == "float32"
    assert "optimization level is 'basic'" in one(found, "Conv:c").cause


def test_a_disabled_optimizer_shows(save, empty):
    found = coverage_of(save, empty, first_conv(), disabled_optimizers=["QDQSelectorActionTransformer"])
    assert one(found, "Conv:c").runs_in == "float32"
    assert one(found, "Conv:c").cause == "ONNX Runtime keeps it in float; none of edgeopt's rules says why."


def test_products_give_float_from_int8_without_a_grid_behind_them(save, empty):
    net = Net(shape=(1, 8, 16))
    model = net.model(linear_layer(net, net.grid("x"), "l"))
    assert [(op.op, op.runs_in) for op in coverage_of(save, empty, model).ops] == [("MatMul", "int8")]


def test_what_was_not_quantized_says_which_operand_is_float(save, empty):
    net = Net()
    first = conv_layer(net, "x", "c")
    weight = net.constant("float_weight", np.ones((16, 16, 3, 3), "float32"))
    second = net.add("Conv", [net.grid(first), weight], "d", pads=[1] * 4)
    third = conv_layer(net, net.grid(second), "e")
    found = coverage_of(save, empty, net.model(net.grid(third)))
    assert one(found, "Conv:c").cause == "Its input is float."
    assert one(found, "Conv:c").runs_in == "float32"
    # ONNX Runtime quantizes a float weight between two grids by itself: what it runs counts.
    assert one(found, "Conv:d").runs_in == "int8"
    assert one(found, "Conv:e").runs_in == "int8"


def test_a_float_graph_has_no_coverage(save, empty):
    assert coverage_of(save, empty, conv_net()) is None


def test_how_names_the_profile_that_confirmed_it(save, empty):
    assert "the profile of ONNX Runtime" in coverage_of(save, empty, first_conv()).how


def test_int8_that_the_profile_does_not_confirm_is_not_told(save, empty, monkeypatch):
    monkeypatch.setattr(ort_room, "executed_kernels", lambda *_: [])
    found = one(coverage_of(save, empty, first_conv()), "Conv:c")
    assert found.runs_in == ""
    assert "no such kernel was seen to run" in found.cause


def test_a_graph_that_cannot_run_on_zeros_is_read_from_the_optimized_graph_alone(save, empty, monkeypatch):
    def refuse(*_):
        raise BackendError("No.", got="zeros")

    monkeypatch.setattr(ort_room, "executed_kernels", refuse)
    found = coverage_of(save, empty, first_conv())
    assert found.how.endswith("could not be run on zeros: zeros")
    assert one(found, "Conv:c").runs_in == "int8"


def test_kernels_on_zeros_are_refused_in_one_sentence(save, tmp_path):
    path = save(conv_net())
    with pytest.raises(BackendError, match="cannot run the graph on zeros"):
        ort_room.executed_kernels(path, {}, (), tmp_path)


def test_nodes_without_names_are_told_apart(save, empty):
    model = first_conv(act="HardSwish")
    for node in model.graph.node:
        node.name = ""
    found = coverage_of(save, empty, model)
    assert [(op.node, op.runs_in) for op in found.ops] == [("c", "float32")]


def test_a_float_convolution_in_blocked_layout_is_not_taken_for_int8(save, empty):
    # Its name and its domain are others in the graph that runs: com.microsoft.nchwc, "a_nchwc".
    net = Net()
    first = net.add("HardSwish", [conv_layer(net, net.grid("x"), "c")], "a")
    second = net.add("Relu", [conv_layer(net, first, "d")], "b")
    found = coverage_of(save, empty, net.model(net.add("Relu", [conv_layer(net, net.grid(second), "e")], "f")))
    assert [op.runs_in for op in found.ops] == ["float32", "float32", "float32"]


def test_the_mobile_file_tells_by_its_kernels_and_is_a_stand_in(save, empty, tmp_path):
    arm = onnx.load(apply_dialect("ort-arm", save(quantized_net()), tmp_path / "arm.onnx").path)
    found = coverage_of(save, empty, arm, backend="ort-mobile", arch="aarch64")
    assert found.proxy
    assert one(found, "Conv:c").runs_in == "int8"
    float_one = coverage_of(save, empty, first_conv(act="HardSwish"), backend="ort-mobile", name="float")
    assert one(float_one, "Conv:c").runs_in == "float32"


def test_weights_in_groups_are_multiplied_in_float_and_say_so(save, empty):
    net = Net(shape=(1, 8, 16))
    nodes = [helper.make_node("MatMul", ["x", "w_dq"], ["y"], "product")]
    scale = net.constant("w_scale", np.full((1, 16), 0.01, "float32"))
    stored = net.constant("w", np.ones((16, 16), "int8"))
    zero = net.constant("w_zero", np.zeros((1, 16), "int8"))
    net.add("DequantizeLinear", [stored, scale, zero], "w_dq", axis=0, block_size=16)
    net.nodes += nodes
    found = coverage_of(save, empty, net.model("y"))
    assert [(op.runs_in, op.cause) for op in found.ops] == [
        ("float32", "Only its weight is stored in integers: it multiplies in float, as the graph says.")
    ]
