"""Each rule of the TensorRT lint finds its graph and leaves the sound one alone; NVIDIA's parser agrees."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from backend_nets import conv_net, make_rules, make_target, quantized_net, two_input_net
from onnx import TensorProto, helper, numpy_helper

from edgeopt.backends.graphs import read_graph
from edgeopt.backends.lint import lint as lint_all
from edgeopt.backends.lint.tensorrt import RULES
from edgeopt.backends.registry import BACKENDS
from edgeopt.backends.tensorrt_build import rtx_version, run_build
from edgeopt.core.errors import BackendError

needs_rtx = pytest.mark.skipif(
    rtx_version() is None, reason="tensorrt-rtx is not installed: pip install 'edgeopt[tensorrt-rtx]'"
)
TENSORRT = make_rules("tensorrt")
# The rules that this file had a graph for before the corpus; the others' graphs are in lint_corpus.py.
FIRST = [f"TRT{number:03}" for number in range(1, 15)]


def lint(graph, rules):
    """Without notes, which no compile shows."""
    return [finding for finding in lint_all(graph, rules) if finding.severity != "note"]


def quantized(name, source, *, dtype="int8", zero=0, scale=0.02, axis=None):
    """Nodes and weights that quantize and dequantize a tensor."""
    scale = np.asarray(scale, "float32")
    more = {} if axis is None else {"axis": axis}
    nodes = [
        helper.make_node("QuantizeLinear", [source, f"{name}_s", f"{name}_z"], [f"{name}_q"], f"{name}_q", **more),
        helper.make_node("DequantizeLinear", [f"{name}_q", f"{name}_s", f"{name}_z"], [name], f"{name}_dq", **more),
    ]
    return nodes, {f"{name}_s": scale, f"{name}_z": np.full(scale.shape, zero, dtype)}


def net(nodes, weights, *, output="y", shape=None, opset=20, domains=()):
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 6, 6])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9)


def kernel(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def int32_bias():
    nodes, weights = quantized("xd", "x")
    nodes += [
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], "w_dq", axis=0),
        helper.make_node("DequantizeLinear", ["b", "bs"], ["bd"], "b_dq", axis=0),
        helper.make_node("Conv", ["xd", "wd", "bd"], ["y"], "conv"),
    ]
    weights |= {
        "w": np.ones((5, 4, 3, 3), "int8"),
        "ws": np.full(5, 0.01, "float32"),
        "wz": np.zeros(5, "int8"),
        "b": np.arange(5, dtype="int32"),
        "bs": np.full(5, 0.001, "float32"),
    }
    return net(nodes, weights)


def activation_per_channel():
    nodes, weights = quantized("xd", "x", scale=[0.01, 0.02, 0.03, 0.04], axis=1)
    wnodes, wweights = quantized("wd", "w")
    nodes += [*wnodes, helper.make_node("Conv", ["xd", "wd"], ["y"], "conv")]
    return net(nodes, weights | wweights | {"w": kernel(5, 4, 3, 3)})


def transposed():
    nodes, weights = quantized("xd", "x")
    wnodes, wweights = quantized("wd", "w")
    nodes += [*wnodes, helper.make_node("ConvTranspose", ["xd", "wd"], ["y"], "up")]
    return net(nodes, weights | wweights | {"w": kernel(4, 5, 3, 3)})


def dynamically_quantized():
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "s", "z"], "dynamic"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], "dq"),
    ]
    return net(nodes, {})


def custom_operator():
    return net([helper.make_node("Mystery", ["x"], ["y"], "mystery", domain="ai.example")], {}, domains=["ai.example"])


def determinant():
    return net([helper.make_node("Det", ["x"], ["y"], "det")], {})


def float_weight():
    nodes, weights = quantized("xd", "x")
    nodes.append(helper.make_node("Conv", ["xd", "w"], ["y"], "conv"))
    return net(nodes, weights | {"w": kernel(5, 4, 3, 3)})


def varying_height():
    model = conv_net()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    return model


# Rule → a graph that breaks it, the node that is named, and whether NVIDIA's parser refuses the graph too.
CASES = {
    "TRT001": (lambda: quantized_net(dtype="uint8"), "quantize_image", False),
    "TRT002": (lambda: quantized_net(zero_point=3), "quantize_image", True),
    "TRT003": (lambda: quantized_net(activation_scale=-0.1), "quantize_image", True),
    "TRT004": (int32_bias, "b_dq", True),
    "TRT005": (activation_per_channel, "xd_q", False),
    "TRT006": (lambda: quantized_net(weight_axis=1), "conv", False),
    "TRT007": (transposed, "up", False),
    "TRT008": (dynamically_quantized, "dynamic", None),
    "TRT009": (custom_operator, "mystery", True),
    "TRT010": (lambda: quantized_net(opset=23), None, None),
    "TRT011": (lambda: quantized_net(dtype="int16", opset=21), "quantize_image", True),
    "TRT012": (determinant, "det", True),
    "TRT013": (float_weight, "conv", False),
    "TRT014": (varying_height, None, None),
}
FLOAT_ONLY = {"TRT005", "TRT006", "TRT007", "TRT013"}


def test_every_rule_has_a_case():
    assert list(CASES) == FIRST
    assert set(FIRST) < set(RULES)


@pytest.mark.parametrize("rule", CASES)
def test_a_rule_finds_its_graph_and_nothing_else(rule, save):
    make, node, _ = CASES[rule]
    findings = lint(read_graph(save(make())), TENSORRT)
    assert {f.rule for f in findings} == ({rule, "TRT001"} if rule == "TRT008" else {rule}) - (
        {"TRT001"} if rule == "TRT008" else set()
    )
    assert findings[0].node == node
    assert {f.severity for f in findings} == {"warning" if rule in FLOAT_ONLY else "error"}


@pytest.mark.parametrize("make", [conv_net, quantized_net, two_input_net])
def test_a_sound_graph_has_no_findings(make, save):
    assert lint(read_graph(save(make())), TENSORRT) == []


@needs_rtx
@pytest.mark.parametrize("rule", [rule for rule, case in CASES.items() if case[2] is not None])
def test_nvidias_parser_agrees_about_what_is_refused(rule, save):
    make, _, refused = CASES[rule]
    report = run_build("--onnx", str(save(make())), "--module", "tensorrt_rtx", "--parse-only")
    assert (report.error is not None) == refused, report.error


def test_constants_made_by_nodes_and_scales_kept_outside_are_seen(tmp_path):
    model = quantized_net(zero_point=5)
    for name in ("xz", "hz"):
        index = next(i for i, t in enumerate(model.graph.initializer) if t.name == name)
        tensor = model.graph.initializer.pop(index)
        model.graph.node.insert(0, helper.make_node("Constant", [], [name], f"make_{name}", value=tensor))
    onnx.save(model, tmp_path / "g.onnx", save_as_external_data=True, location="g.data", size_threshold=0)
    assert {f.rule for f in lint(read_graph(tmp_path / "g.onnx"), TENSORRT)} == {"TRT002"}


def test_a_quantizer_without_zero_point_is_uint8_unless_it_says_otherwise(save):
    for more, expected in (({}, {"TRT001"}), ({"output_dtype": TensorProto.INT8}, set())):
        nodes = [
            helper.make_node("QuantizeLinear", ["x", "s"], ["q"], "q", **more),
            helper.make_node("DequantizeLinear", ["q", "s"], ["y"], "dq"),
        ]
        graph = save(net(nodes, {"s": np.float32(0.1)}, opset=21))
        assert {f.rule for f in lint(read_graph(graph), TENSORRT)} == expected


def test_operators_inside_a_branch_are_seen(save):
    branch = [
        helper.make_graph(
            [helper.make_node(kind, ["x"], [f"{kind}_out"], kind)],
            kind,
            [],
            [helper.make_tensor_value_info(f"{kind}_out", TensorProto.FLOAT, None)],
        )
        for kind in ("Det", "ReduceSum")
    ]
    node = helper.make_node("If", ["yes"], ["y"], "if", then_branch=branch[0], else_branch=branch[1])
    findings = lint(read_graph(save(net([node], {"yes": np.array(True)}))), TENSORRT)
    assert [(f.rule, f.node) for f in findings] == [("TRT012", "Det")]


def test_compile_stops_at_errors_and_counts_them(save, empty):
    with pytest.raises(BackendError, match=r"TRT001 at quantize_image and 3 more: uint8 .* TRT002 at .* 128"):
        BACKENDS["tensorrt"].compile(
            save(quantized_net(dtype="uint8", zero_point=128)), make_target(), TENSORRT, empty(), 1
        )


def test_warnings_do_not_stop_but_are_reported(save, empty):
    engine = BACKENDS["tensorrt"].compile(save(transposed()), make_target(), TENSORRT, empty(), 1)
    assert [(e.node, e.message[:6]) for e in engine.events if e.kind == "warning"] == [("up", "TRT007")]
