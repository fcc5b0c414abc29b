"""Which nodes a DLA takes: each published limit from both sides, and a plan that says it is only one."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from backend_nets import conv_net, half_net, make_rules, make_target, quantized_net
from onnx import TensorProto, helper, numpy_helper

from edgeopt.backends.dla import RULES, plan_dla
from edgeopt.backends.graphs import read_graph
from edgeopt.backends.registry import BACKENDS
from edgeopt.core.errors import BackendError
from edgeopt.pipeline.lint import lint_model
from edgeopt.targets.load import list_targets

BACKEND = BACKENDS["tensorrt"]
DLA = make_rules("tensorrt", options={"dla": 0})


def net(*nodes, weights=None, shape=(1, 8, 16, 16), dtype=TensorProto.FLOAT16):
    """Nodes from x to y: float16, four dimensions."""
    graph = helper.make_graph(
        list(nodes),
        "net",
        [helper.make_tensor_value_info("x", dtype, list(shape))],
        [helper.make_tensor_value_info("y", dtype, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (weights or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def conv(kernel=3, op="Conv", out=4, **attributes):
    # groups: input channels of the weight
    group = attributes.get("group", 1)
    shape = (out, 8 // group, kernel, kernel) if op == "Conv" else (8, out, kernel, kernel)
    weights = {"w": np.zeros(shape, "float16")}
    return net(helper.make_node(op, ["x", "w"], ["y"], "it", **attributes), weights=weights, shape=(1, 8, 64, 64))


def op(kind, *more, weights=None, shape=(1, 8, 16, 16), **attributes):
    return net(helper.make_node(kind, ["x", *more], ["y"], "it", **attributes), weights=weights, shape=shape)


def clip(low, high):
    weights = {"low": np.float16(low), "high": np.float16(high)}
    return op("Clip", "low", "high", weights=weights)


def resize(scale, mode="nearest"):
    return op("Resize", "", "scales", weights={"scales": np.float32([1, 1, scale, scale])}, mode=mode)


TAKEN = {
    "a convolution": lambda: conv(3),
    "the largest kernel": lambda: conv(32),
    "the longest stride": lambda: conv(8, strides=[8, 8]),
    "groups": lambda: conv(3, group=8, out=8),
    "a transposed convolution": lambda: conv(2, op="ConvTranspose", strides=[2, 2]),
    "ReLU": lambda: op("Relu"),
    "ReLU6": lambda: clip(0, 6),
    "a pool": lambda: op("MaxPool", kernel_shape=[8, 8], strides=[2, 2]),
    "an average pool": lambda: op("AveragePool", kernel_shape=[2, 2]),
    "a softmax over the channels": lambda: op("Softmax", axis=1),
    "a wide softmax alone": lambda: op("Softmax", axis=1, shape=(1, 8192, 1, 1)),
    "a maximum over the map": lambda: op("ReduceMax", "axes", weights={"axes": np.int64([2, 3])}),
    "nearest times two": lambda: resize(2),
    "linear times four": lambda: resize(4, "linear"),
    "a window of normalization": lambda: op("LRN", size=5),
    "a constant slope": lambda: op("PRelu", "s", weights={"s": np.zeros((8, 1, 1), "float16")}),
    "channels side by side": lambda: net(helper.make_node("Concat", ["x", "x"], ["y"], "it", axis=1)),
}
# What is not taken, its rule, and a word of the reason.
LEFT = {
    "a kernel too large": (lambda: conv(33), "DLA102", "kernel_shape is 33; the DLA takes 1 to 32"),
    "a stride too long": (lambda: conv(9, strides=[9, 9]), "DLA102", "strides is 9"),
    "a dilation too wide": (lambda: conv(1, dilations=[33, 33]), "DLA102", "dilations is 33"),
    "a padded transposed convolution": (lambda: conv(2, op="ConvTranspose", pads=[1, 1, 1, 1]), "DLA102", "takes 0"),
    "a dilated transposed convolution": (lambda: conv(2, op="ConvTranspose", dilations=[2, 2]), "DLA102", "takes 1"),
    "a pool too large": (lambda: op("AveragePool", kernel_shape=[9, 9]), "DLA102", "kernel_shape is 9"),
    "a clip from below zero": (lambda: clip(-1, 6), "DLA102", "clips to"),
    "a clip too high": (lambda: clip(0, 200), "DLA102", "clips to"),
    "a softmax too wide": (lambda: op("Softmax", axis=1, shape=(1, 1025, 2, 2)), "DLA102", "up to 1024"),
    "a softmax over the batch": (lambda: op("Softmax", axis=0), "DLA102", "over the batch"),
    "a maximum over all": (lambda: op("ReduceMax"), "DLA102", "reduces the batch"),
    "a resize by halves": (lambda: resize(1.5), "DLA102", "whole factors of 1 to 32"),
    "linear times eight": (lambda: resize(8, "linear"), "DLA102", "1 to 4"),
    "cubic": (lambda: resize(2, "cubic"), "DLA102", "nearest and linear"),
    "an even window": (lambda: op("LRN", size=4), "DLA102", "takes 3, 5, 7 and 9"),
    "rows side by side": (
        lambda: net(helper.make_node("Concat", ["x", "x"], ["y"], "it", axis=2)),
        "DLA102",
        "axis is 2",
    ),
    "the places of maxima": (
        lambda: net(helper.make_node("MaxPool", ["x"], ["y", "places"], "it", kernel_shape=[2, 2], strides=[1, 1])),
        "DLA102",
        "places of its maxima",
    ),
    "an error function": (lambda: op("Erf"), "DLA101", "no Erf"),
    "a global average": (lambda: op("GlobalAveragePool"), "DLA101", "no GlobalAveragePool"),
    "three dimensions": (lambda: op("Relu", shape=(1, 8, 16)), "DLA103", "3 dimensions"),
    "a dimension too large": (lambda: op("Relu", shape=(1, 8, 1, 9000)), "DLA103", "9000"),
    "a batch too large": (lambda: op("Relu", shape=(5000, 1, 1, 1)), "DLA103", "batch of 5000"),
    "a shape that varies": (lambda: op("Relu", shape=(1, 8, "h", 16)), "DLA103", "not known"),
    "float32": (
        lambda: net(helper.make_node("Relu", ["x"], ["y"], "it"), dtype=TensorProto.FLOAT),
        "DLA104",
        "float32",
    ),
}


@pytest.mark.parametrize("name", TAKEN)
def test_what_is_within_the_limits_is_taken(name, save):
    plan = plan_dla(read_graph(save(TAKEN[name]())), 1)
    assert [(node.node, node.on_dla, node.cause) for node in plan.nodes] == [("it", True, "")]
    assert plan.parts == 1


@pytest.mark.parametrize("name", LEFT)
def test_what_is_outside_is_the_gpus_and_says_why(name, save):
    make, rule, why = LEFT[name]
    (node,) = plan_dla(read_graph(save(make())), 1).on_gpu
    assert (node.node, node.rule) == ("it", rule)
    assert why in node.cause


def test_every_rule_for_nodes_has_a_case():
    assert {rule for _, rule, _ in LEFT.values()} | {"DLA105"} == set(RULES)


def test_an_open_batch_is_fixed(save):
    net = op("Relu", shape=("n", 8, 16, 16))
    net.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT16, ["n", 8, 16, 16]))
    plan = plan_dla(read_graph(save(net)), 4)
    assert plan.nodes[0].on_dla
    assert not plan_dla(read_graph(save(op("Relu", shape=("n", 8, 16, 16)))), 5000).nodes[0].on_dla


def test_each_return_from_the_gpu_begins_another_part(save):
    names = ["x", *(f"t{index}" for index in range(40)), "y"]
    kinds = ["Relu", "Erf"] * 20 + ["Relu"]
    nodes = [helper.make_node(k, [a], [b], f"{k}_{a}") for k, a, b in zip(kinds, names[:-1], names[1:], strict=True)]
    plan = plan_dla(read_graph(save(net(*nodes))), 1)
    assert (plan.parts, plan.on_dla, plan.too_many_parts) == (21, 21, True)
    target = make_target(dla_cores=1, compute_capability=87)
    model = net(*nodes, weights={"unused": np.zeros(1, "float16")})
    findings = [f for f in BACKEND.check(save(model), target, DLA) if f.severity != "error"]
    assert findings[-1].rule == "DLA105"
    assert "21 parts" in findings[-1].message


def half_conv_net():
    """A convolution that the DLA takes and a product that it does not, in float16."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.normal(size=(4, 8, 3, 3)).astype("float16"),
        "m": rng.normal(size=(4, 2)).astype("float16"),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["g"], "pool"),
        helper.make_node("Flatten", ["g"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "m"], ["y"], "gemm"),
    ]
    return net(*nodes, weights=weights, shape=("n", 8, 16, 16))


def test_the_plan_is_told_with_its_fallbacks_and_the_script_asks_for_the_core(save, empty, monkeypatch):
    monkeypatch.setattr("edgeopt.backends.tensorrt.rtx_version", lambda: None)
    target = make_target("orin", dla_cores=2, compute_capability=87)
    engine = BACKEND.compile(save(half_conv_net()), target, DLA, empty(), 2)
    settings = json.loads((engine.directory / "build.json").read_text())
    assert (settings["dla"], settings["min_batch"], settings["max_batch"]) == (0, 2, 2)
    assert "--useDLACore=0 --allowGPUFallback" in (engine.directory / "trtexec.sh").read_text()
    note = engine.events[0].message
    assert "Planned for DLA core 0, by NVIDIA's published limits; not run: 2 of 5 nodes there, in 1 loadables" in note
    fallen = {finding.node: finding.fix for finding in BACKEND.check(save(half_conv_net()), target, DLA)}
    assert set(fallen) == {"pool", "flatten", "gemm"}
    assert "convolution of 1 by 1" in fallen["gemm"]
    assert "windows of up to 8 by 8" in fallen["pool"]


def test_lint_shows_the_whole_plan_as_if_in_float16(save):
    model = half_conv_net()
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype("float32"), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    (name, *_) = [target.name for target in list_targets() if target.dla_cores]
    result = lint_model(save(model), target=name, runtime="tensorrt")
    plan = {row.node: row.rule for row in result.findings if row.rule > "DLA100"}
    assert plan == {"pool": "DLA101", "flatten": "DLA101", "gemm": "DLA101"}
    assert any("2 of 5 nodes on the DLA, in 1 loadables" in row.message for row in result.findings)
    assert {row.severity for row in result.findings} == {"note"}


def test_a_quantized_graph_is_refused_with_what_would_work(save, empty):
    with pytest.raises(BackendError, match=r"takes no QuantizeLinear.*2 quantized layers.*--recipe fp16"):
        BACKEND.compile(save(quantized_net()), make_target(dla_cores=1), DLA, empty(), 1)


def test_the_float32_reference_is_for_the_gpu_and_says_so(save, empty, monkeypatch):
    monkeypatch.setattr("edgeopt.backends.tensorrt.rtx_version", lambda: None)
    engine = BACKEND.compile(save(conv_net()), make_target(dla_cores=1), DLA, empty(), 1)
    assert json.loads((engine.directory / "build.json").read_text())["dla"] is None
    assert "this float32 engine is for the GPU" in engine.events[0].message
    assert "useDLACore" not in (engine.directory / "trtexec.sh").read_text()


def test_a_net_of_two_dimensions_falls_back_whole(save):
    plan = plan_dla(read_graph(save(half_net())), 1)
    assert (plan.on_dla, plan.parts) == (0, 0)
    assert {node.rule for node in plan.on_gpu} == {"DLA101", "DLA103"}


def test_weights_kept_outside_are_not_read(tmp_path):
    onnx.save(half_conv_net(), tmp_path / "g.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    (tmp_path / "w.bin").unlink()
    assert plan_dla(read_graph(tmp_path / "g.onnx"), 1).on_dla == 2
