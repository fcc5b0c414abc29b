"""OpenVINO's coverage: its kernels are the oracle, and each cause goes away with its fix."""

from __future__ import annotations

import re

import numpy as np
import pytest
from backend_nets import conv_net, make_rules, make_target
from coverage_nets import Net, conv_layer, linear_layer

from edgeopt.backends.coverage.ov import precision_of
from edgeopt.backends.registry import BACKENDS

pytest.importorskip("openvino", reason="pip install 'edgeopt[openvino]'")


def coverage_of(save, empty, model, name="engine"):
    rules = make_rules("openvino", opset_max=22)
    return BACKENDS["openvino"].compile(save(model, f"{name}.onnx"), make_target(), rules, empty(name), 1).coverage


def one(coverage, node):
    return next(op for op in coverage.ops if op.node == node)


def conv(*, act="", dtype="uint8", zero_point=128, behind=None, weight_zero_point=0, axis=0):
    net = Net(dtype=dtype, zero_point=zero_point)
    value = conv_layer(net, net.grid("x"), "c", zero_point=weight_zero_point, axis=axis)
    value = net.add(act, [value], "a") if act else value
    return net.model(net.grid(value, zero_point=behind))


def transposed(*, dtype="uint8", zero_point=128):
    net = Net(dtype=dtype, zero_point=zero_point)
    value = net.add("ConvTranspose", [net.grid("x"), net.weight("t", (16, 16, 3, 3), axis=1)], "c", pads=[1] * 4)
    return net.model(net.grid(value))


CASES = {
    "16 bits": ("Conv:c", conv(dtype="int16", zero_point=0), conv(dtype="int8", zero_point=0), "quantized to int16"),
    "signed with a zero point": ("Conv:c", conv(dtype="int8", zero_point=-128), conv(), "int8 with zero point -128"),
    "weight off zero": ("Conv:c", conv(weight_zero_point=3), conv(), "weight has a zero point other than 0"),
    "scales along the inputs": (
        "Conv:c",
        conv(axis=1),
        conv(axis=0),
        "lie along axis 1, not along the output channels",
    ),
    "transposed": (
        "ConvTranspose:c",
        transposed(zero_point=100),
        transposed(dtype="int8", zero_point=0),
        "zero point of its input",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_keeps_a_node_in_float_is_named_and_its_fix_brings_it_into_int8(save, empty, case):
    node, bad, good, cause = CASES[case]
    found = one(coverage_of(save, empty, bad, "bad"), node)
    if (
        case == "signed with a zero point" and found.runs_in == "int8"
    ):  # as kernels without AMX tiles run it on AMD's CPUs
        assert (found.cause, found.fix) == ("", "")
        return
    assert found.runs_in == "float32"
    assert re.search(cause, found.cause), found.cause
    assert found.fix
    repaired = one(coverage_of(save, empty, good, "good"), node)
    assert (repaired.runs_in, repaired.cause, repaired.fix) == ("int8", "", "")


def test_a_kernel_in_float_that_reads_int8_is_float():
    # OpenVINO lists such a convolution as i8; the kernel's name is what runs, and the clock agrees.
    assert precision_of("brgconv_avx512_f32", "i8") == "float32"
    assert precision_of("brgconv_avx512_amx_I8", "u8") == "int8"
    assert precision_of("undef", "u8") == "int8"
    assert precision_of("brgconv_avx512_other", "i8") == ""


@pytest.mark.parametrize("act", ["HardSwish", "Sigmoid", "Relu"])
def test_activations_that_openvino_absorbs_do_not_matter(save, empty, act):
    assert [op.runs_in for op in coverage_of(save, empty, conv(act=act)).ops] == ["int8"]


def test_the_last_layer_is_found_under_the_name_of_its_output(save, empty):
    net = Net()
    first = conv_layer(net, net.grid("x"), "c")
    second = conv_layer(net, net.grid(first), "d")
    assert [op.runs_in for op in coverage_of(save, empty, net.model(first, second)).ops] == ["int8", "int8"]


def test_a_node_named_as_the_scope_of_another_is_not_taken_for_it(save, empty):
    net = Net()
    first = conv_layer(net, net.grid("x"), "c", axis=1)
    second = conv_layer(net, net.grid(first), "d")
    model = net.model(net.grid(second))
    for node in model.graph.node:
        node.name = {"Conv:c": "block", "Conv:d": "block/conv"}.get(node.name, node.name)
    found = coverage_of(save, empty, model)
    assert [(op.node, op.runs_in) for op in found.ops] == [("block", "float32"), ("block/conv", "int8")]


def test_packed_weights_are_multiplied_in_float_whatever_type_they_are_listed_with(save, empty):
    net = Net(shape=(1, 8, 16))
    scale = net.constant("w_scale", np.full((1, 16), 0.01, "float32"))
    stored, zero = net.constant("w", np.ones((16, 16), "int8")), net.constant("w_zero", np.zeros((1, 16), "int8"))
    weight = net.add("DequantizeLinear", [stored, scale, zero], "w_dq", axis=0, block_size=16)
    found = coverage_of(save, empty, net.model(net.add("MatMul", ["x", weight], "y")))
    assert [op.runs_in for op in found.ops] == ["float32"]
    assert "Only its weight is stored in integers" in found.ops[0].cause


def test_products_of_attention_are_found_inside_the_kernel_that_they_were_compiled_into(save, empty):
    net = Net(shape=(1, 4, 32, 16))
    keys = net.add("Transpose", ["x"], "keys", perm=[0, 1, 3, 2])
    scores = net.add("MatMul", ["x", keys], "scores")
    scaled = net.add("Mul", [scores, net.constant("quarter", np.float32(0.25))], "scaled")
    mixed = net.add("MatMul", [net.add("Softmax", [scaled], "shares"), "x"], "mixed")
    found = coverage_of(save, empty, net.model(linear_layer(net, net.grid(mixed), "out")))
    assert {op.node: op.runs_in for op in found.ops} == {
        "MatMul:scores": "float32",
        "MatMul:mixed": "float32",
        "MatMul:out": "int8",
    }


@pytest.mark.parametrize("op", ["GRU", "LSTM"])
def test_a_recurrent_cell_is_found_under_its_own_name(save, empty, op):
    net, gates = Net(shape=(8, 1, 16)), {"GRU": 3, "LSTM": 4}[op]
    stored = [net.constant(name, np.full((1, gates * 16, 16), 0.1, "float32")) for name in ("w", "r")]
    states = net.add(op, ["x", *stored], "states", hidden_size=16)
    made = linear_layer(net, net.grid(net.add("Squeeze", [states, net.constant("one", np.array([1]))], "flat")), "out")
    found = coverage_of(save, empty, net.model(made))
    assert {op.node: op.runs_in for op in found.ops} == {f"{op}:states": "float32", "MatMul:out": "int8"}
    assert one(found, f"{op}:states").cause.endswith("so it is left in float.")


def test_an_input_that_is_float_is_named(save, empty):
    net = Net(shape=(1, 8, 16))
    first = linear_layer(net, net.grid("x"), "l")
    found = coverage_of(save, empty, net.model(linear_layer(net, first, "m")))
    assert [op.runs_in for op in found.ops] == ["int8", "float32"]
    assert one(found, "MatMul:m").cause == "Its input is float."


def test_a_float_graph_has_no_coverage(save, empty):
    assert coverage_of(save, empty, conv_net()) is None
