"""Conflicts of recipe, target, data and model are found before any work starts."""

import pytest

from edgeopt.core.errors import RecipeError
from edgeopt.recipes import validate
from edgeopt.recipes.check import check, default_recipe_name, precision_of, runtimes_for, sparsity_conflicts
from edgeopt.recipes.ladder import rungs_of
from edgeopt.recipes.load import load_recipe
from edgeopt.recipes.schema import Convert, Finetune, Quantize, Recipe, Sparsify
from edgeopt.targets.load import find_target, list_targets

QUANTIZE = Quantize(precision="int8", observer="histogram", bias_correction=False)
CONVERT = Convert(dtype="float16")
FINETUNE = Finetune.model_validate(
    {
        "batchnorm": "frozen",
        "training": {
            "epochs": 2,
            "batch_size": 8,
            "optimizer": "sgd",
            "learning_rate": 0.1,
            "warmup_epochs": 0.0,
            "schedule": "constant",
            "weight_decay": 0.0,
            "clip_norm": None,
            "loss": "task",
            "distillation": None,
            "precision": "32-true",
            "patience": None,
        },
    }
)
TARGETS = list_targets()


def recipe(*steps, **rest):
    return Recipe(schema_version=1, name="mine", steps=steps, **rest)


def refuse(wanted, target="x86-vnni", *, match, has_data=True, **rest):
    with pytest.raises(RecipeError, match=match):
        check(wanted, find_target(target), has_data=has_data, **{"is_onnx": False} | rest)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("has_data", [True, False])
def test_each_target_can_carry_out_its_own_defaults(target, has_data):
    name, why = default_recipe_name(target, has_data)
    recipe = load_recipe(name)
    if recipe.ladder:
        assert any(not rung.skip for rung in rungs_of(recipe, target, has_data=has_data, is_onnx=False))
    else:
        check(recipe, target, has_data=has_data, is_onnx=False)
    assert why.endswith(".")
    assert name in why or has_data


def test_without_data_the_default_says_why_it_is_a_float_recipe():
    name, why = default_recipe_name(find_target("jetson"), has_data=False)
    assert name == "fp16"
    assert why == ("No data was given, so nothing can be calibrated and the recipe is 'fp16'; give --data for 'auto'.")


def test_a_target_without_int8_says_so():
    target = find_target("x86-vnni")
    floats = tuple(r.model_copy(update={"precisions": ("fp32",)}) for r in target.runtimes)
    plain = target.model_copy(update={"quantization": None, "default_recipe": "fp32", "runtimes": floats})
    assert default_recipe_name(plain, has_data=True) == ("fp32", "x86-vnni has no int8; its default is 'fp32'.")


def test_float16_is_refused_where_the_runtime_has_no_kernels_for_it():
    refuse(
        load_recipe("fp16"),
        match=r"runs fp16 to advantage \(onnxruntime: fp32, int8, w4a8, w4\); use the recipe 'auto'",
    )


def test_bfloat16_is_refused_where_no_runtime_has_it_and_beside_int8():
    refuse(load_recipe("bf16"), match="runs bf16 to advantage")
    both = recipe(QUANTIZE, Convert(dtype="bfloat16"))
    refuse(both, match="quantize to int8 and convert to bfloat16 do not go together")


def test_int8_with_float16_between_needs_a_runtime_that_mixes_them():
    both = recipe(QUANTIZE, CONVERT)
    check(both, find_target("jetson"), has_data=True, is_onnx=False)
    assert precision_of(both) == "int8-fp16"
    refuse(both, match="runs int8-fp16 to advantage")


def test_runtimes_are_those_that_offer_the_recipes_precision():
    local = find_target("local")
    assert [r.name for r in runtimes_for(load_recipe("fp16"), local)] == ["openvino"]
    assert [r.name for r in runtimes_for(load_recipe("bf16"), find_target("openvino-cpu-bf16"))] == ["openvino"]
    assert [r.name for r in runtimes_for(load_recipe("fp32"), local)] == ["onnxruntime", "openvino"]


def test_quantization_without_data_is_refused():
    refuse(
        load_recipe("int8-ptq"),
        has_data=False,
        match=r"edgeopt never calibrates on random tensors; give --data, or use the recipe 'fp32'",
    )


def test_an_accuracy_limit_without_data_is_refused():
    refuse(
        load_recipe("fp32", ["limits.agreement=0.99"]),
        has_data=False,
        match=r"limits\.agreement cannot be judged without",
    )


def test_the_objective_accuracy_without_data_is_refused():
    refuse(load_recipe("fp32", ["objective=accuracy"]), has_data=False, match="objective accuracy cannot be judged")


def test_torch_steps_on_an_onnx_model_are_refused():
    refuse(
        load_recipe("int8-ptq"),
        is_onnx=True,
        match="quantize works on the PyTorch graph, and the model is an ONNX file",
    )


def test_conversion_of_an_onnx_model_is_no_torch_step():
    check(load_recipe("fp16"), find_target("openvino-cpu"), has_data=False, is_onnx=True)


def test_an_onnx_model_newer_than_the_runtime_reads_is_refused():
    refuse(
        load_recipe("fp32"),
        "jetson",
        is_onnx=True,
        model_opset=21,
        match=r"the model has opset 21, newer than jetson-orin-nano reads \(tensorrt up to 20\); export it with 20",
    )
    check(load_recipe("fp32"), find_target("jetson"), has_data=False, is_onnx=True, model_opset=20)


def test_two_quantize_steps_are_refused():
    refuse(recipe(QUANTIZE, QUANTIZE), match="it has 2 quantize steps; keep one")


def test_two_convert_steps_are_refused():
    refuse(recipe(CONVERT, CONVERT), "jetson", match="it has 2 convert steps; keep one")


def test_conversion_before_quantization_is_refused():
    refuse(recipe(CONVERT, QUANTIZE), "jetson", match="put quantize first")


def test_a_float_step_comes_before_what_quantizes_or_converts():
    check(recipe(FINETUNE, QUANTIZE), find_target("x86-vnni"), has_data=True, is_onnx=False)
    check(recipe(FINETUNE, CONVERT), find_target("jetson"), has_data=True, is_onnx=False)
    refuse(recipe(QUANTIZE, FINETUNE), match="finetune comes after the model was quantized; put it first")
    refuse(recipe(CONVERT, FINETUNE), "jetson", match="finetune comes after convert and works in float32; put finetune")


def test_a_float_step_may_come_before_mixed():
    mixed = load_recipe("int8-mixed").steps[0]
    check(recipe(FINETUNE, mixed), find_target("x86-vnni"), has_data=True, is_onnx=False)


def test_two_float_steps_of_a_kind_are_refused():
    refuse(recipe(FINETUNE, FINETUNE, QUANTIZE), match="it has 2 finetune steps; keep one")


def test_a_recovery_of_nothing_is_refused():
    refuse(
        recipe(FINETUNE), match="finetune trains the float model for what quantizes it, or recovers what pruning cost"
    )


def test_a_float_step_that_trains_needs_data():
    refuse(
        recipe(FINETUNE, CONVERT), "jetson", has_data=False, match="finetune needs data to train on, and there is none"
    )


def test_float_steps_on_an_onnx_model_are_refused_in_one_line():
    refuse(
        recipe(FINETUNE, QUANTIZE),
        is_onnx=True,
        match=r"finetune and quantize work on the PyTorch graph, and .* a recipe without finetune and quantize, such as",
    )


def test_a_batch_size_that_comes_twice_is_refused():
    refuse(load_recipe("fp32", ["measure.batch_sizes=[1, 8, 1]"]), match=r"measure\.batch_sizes has 1 more than once")


def test_a_percentile_that_nothing_reads_is_refused():
    refuse(
        load_recipe("int8-ptq", ["steps.quantize.percentile=99"]),
        match=r"steps\.quantize\.percentile is 99\.0, which the observer 'histogram' does not read",
    )
    both = ["steps.quantize.percentile=99", "steps.quantize.observer=percentile"]
    check(load_recipe("int8-ptq", both), find_target("x86-vnni"), has_data=True, is_onnx=False)


def test_all_conflicts_are_said_at_once():
    refuse(
        recipe(CONVERT, QUANTIZE, QUANTIZE),
        has_data=False,
        match=r"(?s)2 quantize steps.*quantize first.*to advantage.*random",
    )


class TestValidateModule:
    def test_everything_that_ships_is_valid(self, capsys):
        assert validate.main([]) == 0
        assert capsys.readouterr().err == ""

    def test_files_are_told_apart_and_each_problem_is_a_line(self, tmp_path, capsys):
        wrong_recipe, wrong_target = tmp_path / "r.yaml", tmp_path / "t.yaml"
        wrong_recipe.write_text("schema_version: 1\nname: r\nsteps: []\nlimit: {}\n")
        wrong_target.write_text("nam: t\n")
        assert validate.main([str(wrong_recipe), str(wrong_target)]) == 1
        error = capsys.readouterr().err
        assert "unknown key limit; nearest valid key: limits" in error
        assert "unknown key nam; nearest valid key: name" in error

    def test_a_target_whose_default_recipe_does_not_ship_is_found(self, monkeypatch, capsys):
        target = find_target("x86-vnni").model_copy(update={"default_recipe": "int9"})
        monkeypatch.setattr(validate, "list_targets", lambda: (target,))
        assert validate.main([]) == 1
        assert "x86-vnni names the recipe 'int9', which does not ship." in capsys.readouterr().err

    def test_a_default_recipe_that_the_target_cannot_carry_out_is_found(self, monkeypatch, capsys):
        target = find_target("x86-vnni").model_copy(update={"float_recipe": "fp16"})
        monkeypatch.setattr(validate, "list_targets", lambda: (target,))
        assert validate.main([]) == 1
        assert "no runtime of x86-vnni runs fp16" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["jetson", "x86-vnni", "openvino-cpu", "raspberry-pi-5"])
def test_sparse_int8_works_wherever_int8_does(target):
    check(load_recipe("sparse-int8"), find_target(target), has_data=True, is_onnx=False)


class TestSparsity:
    sparsify = Sparsify(pattern="2:4")
    distil = load_recipe("sparse-int8").steps[1]

    def test_comes_before_what_quantizes_and_may_come_before_or_behind_a_training(self):
        for steps in (
            (self.sparsify, QUANTIZE),
            (self.sparsify, self.distil, QUANTIZE),
            (self.distil, self.sparsify, QUANTIZE),
            (self.sparsify, CONVERT),
            (self.sparsify, self.distil),
        ):
            check(recipe(*steps), find_target("jetson"), has_data=True, is_onnx=False)
        refuse(recipe(QUANTIZE, self.sparsify), match="sparsify comes after the model was quantized; put it first")
        refuse(recipe(CONVERT, self.sparsify), "jetson", match="sparsify comes after convert and works in float32")

    def test_is_done_once(self):
        refuse(recipe(self.sparsify, self.sparsify, QUANTIZE), match="it has 2 sparsify steps; keep one")

    def test_comes_after_pruning(self):
        assert list(sparsity_conflicts(["prune", "sparsify", "distil", "qat"])) == []
        assert list(sparsity_conflicts(["sparsify", "prune", "qat"])) == [
            "prune comes after sparsify and takes channels out of its groups; put prune first."
        ]

    def test_distillation_after_quantization_is_refused(self):
        refuse(recipe(QUANTIZE, self.distil), match="distil comes after the model was quantized; put it first")
        refuse(recipe(self.distil), match="distil trains the float model for what quantizes it, or recovers")
        refuse(recipe(self.distil, self.distil, QUANTIZE), match="it has 2 distil steps; keep one")
