"""A recipe's options of runtimes, and a model that a target does not read: settled before any work."""

import json

import onnx
import pytest
from onnx import TensorProto, helper

from edgeopt.cli.edge import run
from edgeopt.cli.main import cli
from edgeopt.core.errors import EdgeOptError, RecipeError, TargetError
from edgeopt.pipeline.target_options import demand_opset, with_options
from edgeopt.recipes.load import load_recipe
from edgeopt.targets.load import find_target


def asked(recipe, *overrides, target="jetson-orin-nx"):
    return with_options(find_target(target), load_recipe(recipe, overrides))


def test_a_recipes_options_come_over_the_targets_own():
    target = asked("fp32", "options.openvino.INFERENCE_PRECISION_HINT=bf16", target="openvino-cpu")
    options = {rules.name: rules.options for rules in target.runtimes}
    assert options["openvino"] == {"INFERENCE_PRECISION_HINT": "bf16"}
    assert find_target("openvino-cpu").runtimes[0].options == {"INFERENCE_PRECISION_HINT": "f32"}


def test_without_options_the_target_is_as_it_was():
    assert asked("fp16") == find_target("jetson-orin-nx")


def test_profile_and_dla_reach_the_rules():
    target = asked("fp16", "options.tensorrt.dla=1", "options.tensorrt.max_batch=1")
    assert target.runtimes[0].options == {"dla": 1, "max_batch": 1}


@pytest.mark.parametrize(
    ("target", "recipe", "override", "message"),
    [
        ("jetson-orin-nx", "fp16", "options.tensorflow.dla=0", r"has not\. Received: 'tensorflow'.*first: tensorrt"),
        ("jetson", "fp16", "options.tensorrt.dla=0", r"jetson-orin-nano has none.*nearest first: jetson-orin-nx"),
        ("jetson-orin-nx@jetpack-7.2", "fp16", "options.tensorrt.dla=0", r"has none that its TensorRT builds for"),
        ("jetson-orin-nx", "int8-ptq", "options.tensorrt.dla=0", r"takes no Q/DQ\. Received: int8\. Use --recipe fp16"),
        ("jetson-orin-nx", "fp32", "options.tensorrt.dla=0", r"computes in float16.*Received: fp32"),
        ("jetson-orin-nx", "auto", "options.tensorrt.dla=0", r"Received: a ladder of recipes"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(target, recipe, override, message):
    with pytest.raises(RecipeError, match=message):
        asked(recipe, override, target=target)


@pytest.mark.parametrize("value", ["options.tensorrt=1", "options.tensorrt.dla={a: 1}", "options=1"])
def test_options_are_single_values_by_runtime(value):
    with pytest.raises(EdgeOptError, match="options"):
        load_recipe("fp16", [value])


def test_a_newer_opset_names_the_nearest_that_reads_it():
    with pytest.raises(
        TargetError, match=r"opset 24, newer than jetson-orin-nano@jetpack-6\.2 reads \(tensorrt ==10\.3\.\* up to 20\)"
    ) as caught:
        demand_opset(find_target("jetson@jetpack-6.2"), 24)
    assert "Export it with opset 20 or older, or compile for one that reads it: jetson-orin-nano@jetpack-7.2, " in str(
        caught.value
    )
    demand_opset(find_target("jetson@jetpack-7.2"), 24)
    with pytest.raises(TargetError, match=r"opset 20 or older\.$"):
        demand_opset(find_target("jetson"), 99)


def test_the_command_refuses_the_model_before_work(tmp_path, capsys):
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11), tmp_path / "m.onnx")
    words = ["compile", str(tmp_path / "m.onnx"), "-r", "fp32", "--dry-run", "--json", "-o", str(tmp_path / "out")]
    assert run(cli, [*words, "-t", "jetson@jetpack-6.2"]) == 1
    assert "nearest" not in (said := capsys.readouterr().err)
    assert "jetson-orin-nano@jetpack-7.2" in said
    assert run(cli, [*words, "-t", "jetson@jetpack-7.2"]) == 0
    assert json.loads(capsys.readouterr().out)["target"] == "jetson-orin-nano@jetpack-7.2"
