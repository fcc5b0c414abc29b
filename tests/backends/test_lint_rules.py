"""Every rule has a graph that breaks it; the corpus finds exactly what is written down; rules are complete and cited."""

from __future__ import annotations

import json
import re

import numpy as np
import onnx
import pytest
from backend_nets import make_rules, make_target, quantized_net
from lint_corpus import CASES, EXPECTED, findings
from lint_nets import Net
from lint_runtimes import RUNTIMES
from onnx import helper

from edgeopt.backends.graphs import read_graph
from edgeopt.backends.lint import RUNTIMES as LINTED
from edgeopt.backends.lint import lint, predictions_left_out, rules_of
from edgeopt.backends.lint.base import Rule, by_id
from edgeopt.backends.registry import BACKENDS
from edgeopt.core.errors import BackendError

WRITTEN = json.loads(EXPECTED.read_text())
EVERY_RULE = {rule for runtime in LINTED for rule in rules_of(runtime)}


def found_in(path, runtime="onnxruntime"):
    rules, target = RUNTIMES[runtime]
    return lint(read_graph(path), rules, target)


def test_the_corpus_is_large_and_holds_good_and_bad():
    clean = [name for name, found in WRITTEN.items() if not found.get("onnxruntime") or not found.get("tensorrt")]
    assert len(CASES) >= 40
    assert len(clean) >= 40
    assert set(WRITTEN) == set(CASES)


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_rules_find_exactly_what_is_written_down(name, tmp_path):
    assert findings(CASES[name](), tmp_path) == WRITTEN[name]


def test_every_rule_is_broken_by_a_graph_of_the_corpus():
    broken = {row.split()[0] for found in WRITTEN.values() for rows in found.values() for row in rows}
    assert EVERY_RULE - broken == {"GEN001"}  # data outside its folder: tested below, with files


@pytest.mark.parametrize("runtime", LINTED)
def test_a_rule_says_why_what_to_do_and_who_says_so(runtime):
    for rule in rules_of(runtime).values():
        assert re.fullmatch(r"[A-Z]{2,4}\d{3}", rule.id)
        assert rule.why.endswith(".")
        assert rule.fix.endswith(".")
        assert re.search(r"documentation|experiment|source|#\d+|arXiv|onnx-tensorrt|Manual|edgeopt's|IEEE", rule.source)


def test_two_rules_of_one_id_are_refused():
    rule = Rule(id="X001", effect="slow", title="t", why="w.", fix="f.", source="s")
    with pytest.raises(ValueError, match="one id"):
        by_id(rule, rule)


def test_a_runtime_without_rules_of_its_own_has_those_for_all(save):
    found = lint(read_graph(save(CASES["op_unknown"]())), make_rules("another"))
    assert [f.rule for f in found] == ["GEN002"]
    assert set(rules_of("another")) < set(rules_of("openvino"))


class TestFiles:
    def outside(self, tmp_path, location, size=None):
        model = quantized_net()
        folder = tmp_path / "folder"
        folder.mkdir()
        onnx.save(model, folder / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
        loaded = onnx.load(folder / "m.onnx", load_external_data=False)
        for tensor in loaded.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
        (folder / "m.onnx").write_bytes(loaded.SerializeToString())
        if size is not None:
            (folder / "m.data").write_bytes((folder / "m.data").read_bytes()[:size])
        return folder / "m.onnx"

    @pytest.mark.parametrize(
        ("location", "size", "message"),
        [
            ("../m.data", None, "outside the model's folder"),
            ("/etc/passwd", None, "outside the model's folder"),
            ("none.data", None, "missing or too short"),
            ("m.data", 10, "missing or too short"),
        ],
    )
    def test_data_that_is_elsewhere_or_short_is_an_error_and_nothing_else_is_read(
        self, location, size, message, tmp_path
    ):
        found = found_in(self.outside(tmp_path, location, size))
        assert {f.rule for f in found} == {"GEN001"}
        assert message in found[0].message

    def test_data_beside_the_model_is_read(self, tmp_path):
        rules, target = RUNTIMES["tensorrt"]
        assert lint(read_graph(self.outside(tmp_path, "m.data")), rules, target) == []

    def test_a_graph_that_contradicts_itself_gets_the_checkers_words(self, save):
        found = found_in(save(CASES["types_mixed"]()))
        assert [f.rule for f in found] == ["GEN003"]
        assert "inconsistent type" in found[0].message

    def test_an_operator_that_came_later_says_when(self, save):
        (found,) = found_in(save(CASES["op_newer_than_opset"]()))
        assert "from opset 20 on: Gelu" in found.message

    def test_a_plug_in_of_tensorrt_is_none_of_onnxs_operators(self, save):
        net = Net()
        net.op("EfficientNMS_TRT", [net.input()], "y")
        graph = save(net.model("y"))
        assert [f.rule for f in found_in(graph, "tensorrt")] == []
        assert [f.rule for f in found_in(graph, "openvino")] == ["GEN002"]

    def test_an_output_without_a_shape_is_no_fault(self, save):
        model = quantized_net()
        model.graph.output[0].type.tensor_type.ClearField("shape")
        assert found_in(save(model), "openvino") == []


class TestFusion:
    def reasons(self, model, save, runtime="onnxruntime"):
        return {f.node: f for f in found_in(save(model), runtime) if f.rule.startswith("ORT")}

    def test_the_words_name_what_stands_in_the_way(self, save):
        found = self.reasons(CASES["conv_uint8_hard_swish"](), save)
        assert "HardSwish follows" in found["conv"].message
        found = self.reasons(CASES["conv_uint8_relu6_wide"](), save)
        assert "from 0 to 12.75" in found["conv"].message
        found = self.reasons(CASES["conv_uint8_bias_on_other_step"](), save)
        assert "off input's step times weight's by 90 %" in found["conv"].message

    def test_old_clips_have_their_bounds_as_attributes(self, save):
        net = Net(opset=10)
        zero = {"dtype": "uint8"}
        value = net.conv(net.q(net.input(), "xq", dtype="uint8", zero=128), "conv", bias=None, per_channel=False)
        value = net.op("Clip", [value], "clip", min=0.0, max=6.0)
        net.op("GlobalAveragePool", [net.q(value, "hq", scale=0.0235, **zero)], "y")
        for node in net.nodes:
            for index in [i for i, a in enumerate(node.attribute) if a.name == "axis"]:
                del node.attribute[index]
        assert self.reasons(net.model("y"), save) == {}

    def test_arm_runs_int8_activations_and_x86_does_not_where_two_read_them(self, save):
        model = CASES["residual_arm"]()
        assert {f.rule for f in self.reasons(model, save).values()} == {"ORT002"}
        assert self.reasons(model, save, "onnxruntime armv8.0") == {}

    def test_a_graph_with_a_cycle_ends(self, save):
        net = Net()
        net.input()
        net.op("Reshape", ["b", net.const("s", np.array([0, -1]))], "a")
        net.op("Transpose", ["a"], "b")
        net.op("MatMul", ["b", net.const("w", np.ones((4, 4), "float32"))], "y")
        found = found_in(save(net.model("y")))
        assert {f.severity for f in found} == {"error"}


class TestBackendsUseTheRules:
    def test_predictions_are_left_to_the_compile_and_errors_are_not(self, save):
        rules, target = RUNTIMES["onnxruntime"]
        found = lint(read_graph(save(CASES["conv_uint8_axis_1"]())), rules, target)
        assert {f.rule for f in predictions_left_out(found, "onnxruntime")} == {"ORT014"}
        found = lint(read_graph(save(CASES["conv_uint8_hard_swish"]())), rules, target)
        assert predictions_left_out(found, "onnxruntime") == []

    @pytest.mark.parametrize(
        ("backend", "name", "rule"),
        [
            ("onnxruntime", "conv_uint8_axis_1", "ORT014"),
            ("openvino", "shared_float_weight_both_ways", "OV017"),
            ("ort-mobile", "conv_uint8_float_bias", "ORTM001"),
            ("tensorrt", "op_lp_pool_3", "TRT018"),
        ],
    )
    def test_check_finds_what_the_rules_find(self, backend, name, rule, save):
        rules, target = RUNTIMES[backend]
        found = BACKENDS[backend].check(save(CASES[name]()), target, rules)
        assert [f.rule for f in found if f.severity == "error"] == [rule]
        assert all(f.severity != "note" for f in found)

    def test_openvino_refuses_int8_on_armv8_before_it_is_asked(self, save):
        target = make_target("armv8", isa={"arch": "aarch64"})
        found = BACKENDS["openvino"].check(save(quantized_net()), target, make_rules("openvino"))
        assert [f.rule for f in found] == ["OV005"]

    def test_an_error_says_what_to_do(self, save, empty):
        rules, target = RUNTIMES["tensorrt"]
        graph = save(CASES["op_max_pool_dilated"]())
        with pytest.raises(BackendError, match=r"TRT018 at y: .*dilations \[2, 2\]\. Write it with the forms"):
            BACKENDS["tensorrt"].compile(graph, target, rules, empty(), 1)


def test_a_layer_inside_a_branch_is_looked_at(save):
    found = found_in(save(CASES["branch_with_det"]()), "openvino")
    assert [(f.rule, f.node) for f in found] == [("OV012", "Det")]


def test_a_node_without_a_name_goes_by_its_output(save):
    model = CASES["op_det"]()
    model.graph.node[0].name = ""
    assert [f.node for f in found_in(save(model), "openvino")] == ["y"]


def test_a_function_of_the_models_own_is_no_unknown_operator(save):
    body = [helper.make_node("Relu", ["a"], ["b"])]
    function = helper.make_function("mine", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 20)])
    net = Net()
    net.op("Twice", [net.input()], "y", domain="mine")
    model = net.model("y")
    model.functions.append(function)
    graph = save(model)
    assert found_in(graph) == []
    assert found_in(graph, "openvino") == []
