"""A recipe with a ladder: its rungs take its limits, overrides reach them, and what cannot be tried says why."""

import pytest

from edgeopt.core.errors import RecipeError
from edgeopt.recipes.check import precision_of
from edgeopt.recipes.ladder import load_rungs, rungs_of
from edgeopt.recipes.load import load_recipe
from edgeopt.recipes.schema import Quantize
from edgeopt.targets.load import find_target, list_targets


def ladder(folder, rungs, more=""):
    path = folder / "mine.yaml"
    path.write_text(f"schema_version: 1\nname: mine\nsteps: []\nladder: [{', '.join(map(str, rungs))}]\n{more}")
    return load_recipe(path)


def tried(target, overrides=(), *, is_onnx=False):
    recipe = load_recipe("auto", overrides)
    rungs = rungs_of(recipe, find_target(target), overrides=overrides, has_data=True, is_onnx=is_onnx)
    return {rung.recipe.name: rung.skip for rung in rungs}


def test_every_rung_takes_the_ladders_limits_measure_and_objective():
    overrides = ["limits.drop_pp=0.5", "measure.threads=2", "objective=size"]
    for rung in load_rungs(load_recipe("auto", overrides), overrides):
        assert (rung.limits.drop_pp, rung.limits.latency_ratio) == (0.5, 1.0)
        assert (rung.measure.threads, rung.objective) == (2, "size")


def test_an_override_of_a_step_reaches_every_rung_that_has_the_step():
    overrides = ["steps.quantize.observer=minmax"]
    rungs = load_rungs(load_recipe("auto", overrides), overrides)
    quantized = [rung.step(Quantize) for rung in rungs if any(type(step) is Quantize for step in rung.steps)]
    assert len(quantized) > 1
    assert {step.observer for step in quantized} == {"minmax"}
    assert any(rung.step(Quantize) is None for rung in rungs)


def test_an_override_of_a_step_that_no_rung_has_is_refused_with_the_steps_there_are():
    overrides = ["steps.prune.ratio=0.5"]
    with pytest.raises(RecipeError, match=r"No rung of the recipe 'auto' has the step.*Their steps: convert, quantize"):
        load_rungs(load_recipe("auto", overrides), overrides)


def test_an_override_that_contradicts_a_rung_is_an_error_and_no_skipped_rung():
    with pytest.raises(RecipeError, match=r"'int8-ptq' cannot be carried out: steps.quantize.percentile is 99.0"):
        tried("x86-vnni", ["steps.quantize.percentile=99"])


def test_steps_beside_a_ladder_and_a_rung_named_twice_are_refused(tmp_path):
    own = tmp_path / "own.yaml"
    own.write_text("schema_version: 1\nname: own\nladder: [fp16]\nsteps:\n  - convert: {dtype: float16}\nlimits: {}\n")
    with pytest.raises(RecipeError, match="a recipe with a ladder has no steps of its own"):
        load_recipe(own)
    with pytest.raises(RecipeError, match="the ladder has fp16 more than once"):
        ladder(tmp_path, ["fp16", "int8-ptq", "fp16"])


def test_a_ladder_on_a_ladder_is_refused_with_its_rungs(tmp_path):
    with pytest.raises(
        RecipeError, match=r"is a ladder itself\. Received: 'auto'\. Name its rungs instead: fp16, int8"
    ):
        load_rungs(ladder(tmp_path, ["fp16", "auto"]))


def test_a_rung_that_does_not_ship_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="There is no recipe of that name"):
        load_rungs(ladder(tmp_path, ["int9"]))


def test_float16_is_skipped_where_it_brings_no_speed_and_tried_where_size_counts():
    assert "no runtime of x86-vnni runs fp16" in tried("x86-vnni")["fp16"]
    assert "halves the file on openvino-cpu and not the time" in tried("openvino-cpu")["fp16"]
    assert tried("openvino-cpu", ["objective=size"])["fp16"] == ""
    assert tried("jetson")["fp16"] == ""


def test_an_onnx_file_climbs_the_float_rungs_only():
    skips = tried("jetson", is_onnx=True)
    assert skips["fp16"] == ""
    assert "the model is an ONNX file" in skips["int8-ptq"]


def test_where_no_rung_can_be_tried_each_reason_is_said_once():
    with pytest.raises(RecipeError, match=r"no rung of its ladder can be tried: no runtime of x86-vnni") as refused:
        tried("x86-vnni", is_onnx=True)
    assert str(refused.value).count("quantize works on the PyTorch graph") == 1


def test_without_data_a_ladder_is_refused_and_the_float_recipe_named():
    with pytest.raises(RecipeError, match=r"cannot be judged without data; give --data, or use the recipe 'fp32'"):
        rungs_of(load_recipe("auto"), find_target("x86-vnni"), has_data=False, is_onnx=False)


def test_a_target_that_runs_float_only_has_another_default_and_refuses_the_ladder():
    target = find_target("android-vulkan")
    assert target.default_recipe == target.float_recipe == "fp32"
    with pytest.raises(RecipeError, match="no runtime of android-vulkan runs int8 to advantage"):
        rungs_of(load_recipe("auto"), target, has_data=True, is_onnx=False)


@pytest.mark.parametrize(
    "target", [t for t in list_targets() if t.default_recipe == "auto"], ids=lambda target: target.name
)
def test_every_target_whose_default_is_the_ladder_can_try_an_int8_rung_of_it(target):
    rungs = rungs_of(load_recipe("auto"), target, has_data=True, is_onnx=False)
    assert any(precision_of(rung.recipe) == "int8" for rung in rungs if not rung.skip)
