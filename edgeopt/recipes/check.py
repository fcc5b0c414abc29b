"""Whether a recipe can be carried out for a target, said before any work starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgeopt.core.errors import RecipeError
from edgeopt.recipes.schema import FLOAT_STEPS, Convert, Qat, Quantize, Recipe, step_name, training_of, weight_only
from edgeopt.targets.schema import Precision, RuntimeRules, Target

__all__ = [
    "check",
    "default_recipe_name",
    "lacking",
    "onnx_conflicts",
    "own_conflicts",
    "precision_of",
    "runtimes_for",
    "sparsity_conflicts",
]

_RECOVERY = ("finetune", "distil")  # float steps that leave the graph as it is: alone they would save nothing


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
    return [
        *_order_conflicts(recipe),
        *sparsity_conflicts([step_name(step) for step in recipe.steps]),
        *_option_conflicts(recipe),
        *_training_conflicts(recipe),
    ]


def precision_of(recipe: Recipe) -> Precision:
    """What the recipe's artifact computes in: ``fp32`` where no step changes it."""
    quantize: Quantize | None = recipe.step(Quantize)
    convert: Convert | None = recipe.step(Convert)
    if quantize is not None:
        return "int8-fp16" if convert and quantize.precision == "int8" else quantize.precision
    if convert is None:
        return "fp32"
    return "bf16" if convert.dtype == "bfloat16" else "fp16"


def lacking(recipe: Recipe, rules: RuntimeRules) -> tuple[Precision, ...]:
    """What the recipe asks for, of the whole graph or of single layers, that the runtime does not offer."""
    wanted: list[Precision] = [precision_of(recipe)]
    quantize: Quantize | None = recipe.step(Quantize)
    if quantize is not None:
        # 7-bit weights are int8 ones that use less of it, and float is what every runtime has.
        wanted += ["int8" if p == "w7a8" else p for p in quantize.layer_precisions if p != "float"]
    return tuple(p for p in dict.fromkeys(wanted) if p not in rules.precisions)


def runtimes_for(recipe: Recipe, target: Target) -> tuple[RuntimeRules, ...]:
    """The target's runtimes that offer the recipe's precisions, in the target's order."""
    return tuple(rules for rules in target.runtimes if not lacking(recipe, rules))


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
    names = [step_name(step) for step in recipe.steps]
    floats = dict.fromkeys(name for name in names if name in FLOAT_STEPS)
    for places, name in (
        (_places(recipe, Quantize), "quantize or qat"),
        *(([place for place, other in enumerate(names) if other == name], name) for name in floats),
        (_places(recipe, Convert), "convert"),
    ):
        if len(places) > 1:
            same = {names[place] for place in places}
            yield f"it has {len(places)} {same.pop() if len(same) == 1 else name} steps; keep one."
    quantized, converted = _places(recipe, Quantize), _places(recipe, Convert)
    if converted and quantized and converted[0] < quantized[0]:
        name = names[quantized[0]]
        yield f"convert comes before {name}, which calibrates in float32; put {name} first."
    for name in floats:
        first = min((*quantized, *converted), default=len(names))
        if names.index(name) > first and first in quantized:
            yield f"{name} comes after the model was quantized; put it first, or train on the grid with qat."
        elif names.index(name) > first:
            yield f"{name} comes after convert and works in float32; put {name} first."
    if floats and all(name in _RECOVERY for name in floats) and not (quantized or converted):
        yield (
            f"{' and '.join(floats)} trains the float model for what quantizes it, or recovers what pruning cost, and "
            "nothing does either; add quantize or qat behind it, or prune before it."
        )
    quantize, convert = recipe.step(Quantize), recipe.step(Convert)
    if quantize and convert and (quantize.precision, convert.dtype) != ("int8", "float16"):
        yield (
            f"quantize to {quantize.precision} and convert to {convert.dtype} do not go together: "
            "only int8 with float16 in between has runtimes; leave one of the two steps out."
        )


def sparsity_conflicts(names: Sequence[str]) -> Iterator[str]:
    """What steps of these names, in this order, would take from sparsify's groups."""
    if "sparsify" in names and "prune" in names[names.index("sparsify") :]:
        yield "prune comes after sparsify and takes channels out of its groups; put prune first."


def _places(recipe: Recipe, kind: type[object]) -> list[int]:
    return [place for place, step in enumerate(recipe.steps) if isinstance(step, kind)]


def _option_conflicts(recipe: Recipe) -> Iterator[str]:
    sizes = recipe.measure.batch_sizes
    if twice := sorted({size for size in sizes if sizes.count(size) > 1}):
        yield f"measure.batch_sizes has {', '.join(map(str, twice))} more than once; name each batch size once."
    quantize = recipe.step(Quantize)
    if quantize is None:
        return
    readers = {"percentile": ("percentile", "best"), "momentum": ("moving_average",)}
    for option, observers in readers.items():
        value = getattr(quantize, option)
        if quantize.observer not in observers and value != Quantize.model_fields[option].default:
            yield (
                f"steps.{step_name(quantize)}.{option} is {value}, which the observer {quantize.observer!r} does not read; "
                f"set steps.{step_name(quantize)}.observer={observers[0]} or leave it out."
            )
    yield from _group_conflicts(quantize)


def _group_conflicts(quantize: Quantize) -> Iterator[str]:
    grouped = [p for p in quantize.layer_precisions if weight_only(p)]
    if grouped and isinstance(quantize, Qat):
        yield f"qat trains layers whose inputs are quantized too, and {grouped[0]} is weight-only; use w4a8, or quantize."
        return
    if grouped and quantize.group_size is None:
        yield f"{grouped[0]} has one scale per group of weights; set steps.quantize.group_size, e.g. 32."
    if grouped:
        return
    if quantize.group_size is not None:
        yield f"steps.quantize.group_size is for w8 and w4; {quantize.precision} has one scale per output channel."
    if quantize.gptq:
        yield f"steps.quantize.gptq is for w8 and w4, not for {quantize.precision}; set it to false."


def _training_conflicts(recipe: Recipe) -> Iterator[str]:
    for step in recipe.steps:
        training = training_of(step)
        if training is None:
            continue
        name, epochs = f"steps.{step_name(step)}", training.epochs
        if training.warmup_epochs >= epochs:
            yield (
                f"{name}.training.warmup_epochs is {training.warmup_epochs:g}, and there are only {epochs} epochs; "
                "make it less."
            )
        if not isinstance(step, Qat):
            continue
        frozen = step.freeze_ranges_after
        if step.scales == "learned" and frozen is not None:
            yield f"{name}.freeze_ranges_after is for observed scales, and they are learned; leave it out."
        if step.scales == "observed" and (frozen is None or frozen >= epochs):
            yield (
                f"{name}.freeze_ranges_after is {'missing' if frozen is None else frozen}: observed ranges must be "
                f"frozen before the last of {epochs} epochs; set it below {epochs}."
            )


def _target_conflicts(recipe: Recipe, target: Target) -> Iterator[str]:
    if runtimes_for(recipe, target):
        return
    offers = "; ".join(f"{rules.name}: {', '.join(rules.precisions)}" for rules in target.runtimes)
    wanted = " and ".join(dict.fromkeys(p for rules in target.runtimes for p in lacking(recipe, rules)))
    yield (
        f"no runtime of {target.name} runs {wanted} to advantage ({offers}); "
        f"use the recipe {target.default_recipe!r} with data or {target.float_recipe!r} without."
    )


def _data_conflicts(recipe: Recipe, target: Target, *, has_data: bool) -> Iterator[str]:
    if has_data:
        return
    if (quantize := recipe.step(Quantize)) is not None:
        yield (
            f"{step_name(quantize)} needs data to calibrate with, and edgeopt never calibrates on random tensors; "
            f"give --data, or use the recipe {target.float_recipe!r}."
        )
    for step in recipe.float_steps:
        if training_of(step) is not None:
            yield f"{step_name(step)} needs data to train on, and there is none; give --data, or leave the step out."
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
    if in_torch := [step_name(step) for step in recipe.steps if not isinstance(step, Convert)]:
        names = " and ".join(in_torch)
        yield (
            f"{names} work{'s' if len(in_torch) == 1 else ''} on the PyTorch graph, and the model is an ONNX file; give "
            f"the PyTorch model (a torch.export archive is best), or use a recipe without {names}, such as 'fp32'."
        )
    readers = runtimes_for(recipe, target)
    newest = max((rules.opset_max for rules in readers), default=None)
    if model_opset is not None and newest is not None and model_opset > newest:
        limits = ", ".join(f"{rules.name} up to {rules.opset_max}" for rules in readers)
        yield f"the model has opset {model_opset}, newer than {target.name} reads ({limits}); export it with {newest}."
