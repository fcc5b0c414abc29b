"""What the quantize step refuses, before and at its start."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest
from conftest import NETS, dataset, export, make_config, make_context, make_recipe, make_target, samples, seeded

from edgeopt.compress.registry import STEPS
from edgeopt.core.errors import RecipeError
from edgeopt.recipes.schema import STEPS as CONFIGS

INT8 = {"quantize": {"precision": "int8", "observer": "minmax", "bias_correction": False}}
STEP = STEPS["quantize"]


def check(recipe=None, target=None, *, has_data=True):
    recipe = recipe or make_recipe(INT8)
    STEP.check(recipe.steps[0], recipe, target or make_target(), has_data)


def test_a_sound_recipe_passes():
    check()
    check(make_recipe({"quantize": {**INT8["quantize"], "percentile": 99.0}}))
    check(make_recipe(INT8, {"convert": {"dtype": "float16"}}))


def test_int8_without_data_is_refused_and_the_float_recipe_named():
    with pytest.raises(RecipeError, match=r"needs data to calibrate on.*recipe 'fp32'"):
        check(has_data=False)


def test_a_target_without_quantization_rules_is_refused():
    target = make_target().model_copy(update={"quantization": None})
    with pytest.raises(RecipeError, match=r"'bench' has no int8.*no quantization rules.*'fp32'"):
        check(target=target)


def test_a_target_whose_runtimes_have_no_int8_is_refused_with_what_they_offer():
    target = make_target()
    runtime = target.runtimes[0].model_copy(update={"precisions": ("fp32", "fp16")})
    with pytest.raises(RecipeError, match=r"has no int8.*offer fp32, fp16"):
        check(target=target.model_copy(update={"runtimes": (runtime,)}))


def test_two_quantize_steps_are_refused():
    with pytest.raises(RecipeError, match="more than once"):
        check(make_recipe(INT8, INT8))


def test_quantizing_after_the_conversion_is_refused():
    with pytest.raises(RecipeError, match="Put quantize first"):
        check(make_recipe({"convert": {"dtype": "float16"}}, INT8))


def test_an_onnx_model_is_refused(tmp_path):
    kind, shape = NETS["mlp"]
    model = dataclasses.replace(export(seeded(kind, shape), shape), program=None, onnx_path=tmp_path / "m.onnx")
    with pytest.raises(RecipeError, match="torch-level step"):
        STEP.run(model, make_config(), make_context(dataset(samples(4, shape))))


@pytest.mark.parametrize("with_set", [False, True])
def test_running_without_a_calibration_split_is_refused(with_set):
    kind, shape = NETS["mlp"]
    data = dataclasses.replace(dataset(samples(4, shape)), splits={}) if with_set else None
    with pytest.raises(RecipeError, match=r"needs data to calibrate on\..*calibration split"):
        STEP.run(export(seeded(kind, shape), shape), make_config(), make_context(data))


def test_running_for_a_target_without_int8_is_refused():
    kind, shape = NETS["mlp"]
    target = make_target().model_copy(update={"quantization": None})
    with pytest.raises(RecipeError, match="has no int8"):
        STEP.run(export(seeded(kind, shape), shape), make_config(), make_context(dataset(samples(4, shape)), target))


def test_checking_a_recipe_does_not_import_torch():
    code = (
        "import sys; from edgeopt.compress.registry import STEPS; STEPS['quantize'].check;"
        "sys.exit('torch' in sys.modules or 'torchao' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", STEPS)
def test_every_registered_step_has_a_recipe_section_and_can_be_checked_and_run(name):
    assert name in CONFIGS
    assert callable(STEPS[name].check)
    assert callable(STEPS[name].run)


def test_the_class_and_an_instance_serve_alike():
    recipe = make_recipe(INT8)
    STEPS["quantize"]().check(recipe.steps[0], recipe, make_target(), True)
