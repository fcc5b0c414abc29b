"""Whether a recipe can be carried out for a target, said before any work starts."""

from __future__ import annotations

from collections.abc import Iterator

from edgeopt.core.errors import RecipeError
from edgeopt.recipes.schema import Convert, Quantize, Recipe
from edgeopt.targets.schema import Precision, RuntimeRules, Target

__all__ = ["check", "default_recipe_name", "onnx_conflicts", "own_conflicts", "precision_of", "runtimes_for"]


def check(recipe: Recipe, target: Target, *, has_data: bool, is_onnx: bool, model_opset: int | None = None) -> None:
    """Refuse what cannot work. Nothing is read and nothing is probed.

    Args:
        recipe: With its overrides applied.
        target: What it is to be carried out for.
        has_data: Whether the user gave data.
        is_onnx: Whether the model came as ONNX, where steps that work on the PyTorch graph have nothing to work on.
        model_opset: The opset of that ONNX file, where it is known already.

    Raises:
        RecipeError: Each conflict in one line, with what would work.
    """
    conflicts = [
        *own_conflicts(recipe),
        *_target_conflicts(recipe, target),
        *_data_conflicts(recipe, target, has_data=has_data),
        *onnx_conflicts(recipe, target, is_onnx=is_onnx, model_opset=model_opset),
    ]
    if conflicts:
        raise RecipeError(
            f"The recipe {recipe.name!r} cannot be carried out for {target.name}: " + "\n  ".join(conflicts)
        )


def own_conflicts(recipe: Recipe) -> list[str]:
    """What the recipe contradicts itself in, whatever the target."""
    return [*_order_conflicts(recipe), *_option_conflicts(recipe)]


def precision_of(recipe: Recipe) -> Precision:
    """What the recipe's artifact computes in: ``fp32`` where no step changes it."""
    if recipe.step(Quantize):
        return "int8-fp16" if recipe.step(Convert) else "int8"
    return "fp16" if recipe.step(Convert) else "fp32"


def runtimes_for(recipe: Recipe, target: Target) -> tuple[RuntimeRules, ...]:
    """The target's runtimes that offer the recipe's precision, in the target's order."""
    return tuple(rules for rules in target.runtimes if precision_of(recipe) in rules.precisions)


def default_recipe_name(target: Target, has_data: bool) -> tuple[str, str]:
    """The recipe for a user who named none, and one sentence that says why it is this one."""
    if not has_data:
        return target.float_recipe, (
            f"No data was given, so nothing can be calibrated and the recipe is {target.float_recipe!r}; "
            f"give --data for {target.default_recipe!r}."
        )
    if target.quantization is None:
        return target.default_recipe, f"{target.name} has no int8; its default is {target.default_recipe!r}."
    return target.default_recipe, f"There is data to calibrate with, so the recipe is {target.name}'s default."


def _order_conflicts(recipe: Recipe) -> Iterator[str]:
    kinds = [type(step) for step in recipe.steps]
    for kind, name in ((Quantize, "quantize"), (Convert, "convert")):
        if kinds.count(kind) > 1:
            yield f"it has {kinds.count(kind)} {name} steps; keep one."
    if Convert in kinds and Quantize in kinds and kinds.index(Convert) < kinds.index(Quantize):
        yield "convert comes before quantize, which calibrates in float32; put quantize first."


def _option_conflicts(recipe: Recipe) -> Iterator[str]:
    sizes = recipe.measure.batch_sizes
    if twice := sorted({size for size in sizes if sizes.count(size) > 1}):
        yield f"measure.batch_sizes has {', '.join(map(str, twice))} more than once; name each batch size once."
    quantize = recipe.step(Quantize)
    unused = quantize is not None and quantize.observer != "percentile"
    if unused and quantize.percentile != Quantize.model_fields["percentile"].default:
        yield (
            f"steps.quantize.percentile is {quantize.percentile}, which the observer {quantize.observer!r} "
            "does not read; set steps.quantize.observer=percentile or leave it out."
        )


def _target_conflicts(recipe: Recipe, target: Target) -> Iterator[str]:
    if runtimes_for(recipe, target):
        return
    offers = "; ".join(f"{rules.name}: {', '.join(rules.precisions)}" for rules in target.runtimes)
    yield (
        f"no runtime of {target.name} runs {precision_of(recipe)} to advantage ({offers}); "
        f"use the recipe {target.default_recipe!r} with data or {target.float_recipe!r} without."
    )


def _data_conflicts(recipe: Recipe, target: Target, *, has_data: bool) -> Iterator[str]:
    if has_data:
        return
    if recipe.step(Quantize):
        yield (
            "quantize needs data to calibrate with, and edgeopt never calibrates on random tensors; "
            f"give --data, or use the recipe {target.float_recipe!r}."
        )
    limited = [name for name in ("drop_pp", "agreement") if getattr(recipe.limits, name) is not None]
    if limited and not recipe.step(Quantize):
        names = " and ".join(f"limits.{name}" for name in limited)
        yield f"{names} cannot be judged without data; give --data, or set {limited[0]}=null."
    if recipe.objective == "accuracy":
        yield "objective accuracy cannot be judged without data; give --data, or choose latency or size."


def onnx_conflicts(recipe: Recipe, target: Target, *, is_onnx: bool, model_opset: int | None) -> Iterator[str]:
    """What cannot be done to a model that came as ONNX."""
    if not is_onnx:
        return
    if recipe.step(Quantize):
        yield (
            "quantize works on the PyTorch graph, and the model is an ONNX file; give the PyTorch model "
            "(a torch.export archive is best), or use a recipe without quantize, such as 'fp32'."
        )
    readers = runtimes_for(recipe, target)
    newest = max((rules.opset_max for rules in readers), default=None)
    if model_opset is not None and newest is not None and model_opset > newest:
        limits = ", ".join(f"{rules.name} up to {rules.opset_max}" for rules in readers)
        yield f"the model has opset {model_opset}, newer than {target.name} reads ({limits}); export it with {newest}."
