"""What a recipe and a model ask of a target, settled before any work: runtime options, opsets, accelerators."""

from __future__ import annotations

from collections.abc import Iterator

from edgeopt.core.errors import RecipeError, TargetError, nearest_first
from edgeopt.recipes.check import precision_of
from edgeopt.recipes.schema import Recipe
from edgeopt.targets.load import list_targets
from edgeopt.targets.releases import pinned, releases_of
from edgeopt.targets.schema import Target

__all__ = ["demand_opset", "with_options"]

_DLA_TAKES = ("fp16",)


def with_options(target: Target, recipe: Recipe) -> Target:
    """The target with the recipe's ``options`` over its own.

    Raises:
        RecipeError: An option is for a runtime that the target has not, or asks for a DLA where there is none, or in a
            precision that no DLA computes in; what would work is named.
    """
    names = [rules.name for rules in target.runtimes]
    for name in recipe.options:
        if name not in names:
            known = ", ".join(nearest_first(name, names))
            raise RecipeError(
                f"The recipe {recipe.name!r} has options for a runtime that {target.name} has not.",
                got=repr(name),
                fix=f"Its runtimes, nearest first: {known}.",
            )
    runtimes = tuple(
        rules.model_copy(update={"options": {**rules.options, **recipe.options.get(rules.name, {})}})
        for rules in target.runtimes
    )
    whole = {key: getattr(target, key) for key in Target.model_fields} | {"runtimes": runtimes}
    changed = Target.model_validate(whole)
    if any(rules.options.get("dla") is not None for rules in runtimes):
        _demand_dla(changed, recipe)
    return changed


def demand_opset(target: Target, opset: int) -> None:
    """Refuse an ONNX model that no runtime of the target reads.

    Raises:
        TargetError: With the nearest targets and releases that do.
    """
    newest = max(rules.opset_max for rules in target.runtimes)
    if opset <= newest:
        return
    reads = ", ".join(f"{rules.name} {rules.versions} up to {rules.opset_max}" for rules in target.runtimes)
    others = [one.name for one in _others(target) if max(rules.opset_max for rules in one.runtimes) >= opset]
    near = ", ".join(nearest_first(target.name, others)[:3])
    raise TargetError(
        f"The model has opset {opset}, newer than {target.name} reads ({reads}).",
        got=f"opset {opset}",
        fix=f"Export it with opset {newest} or older"
        + (f", or compile for one that reads it: {near}." if near else "."),
    )


def _demand_dla(target: Target, recipe: Recipe) -> None:
    if not target.dla_cores:
        near = [one.name for one in _others(target) if one.dla_cores]
        raise RecipeError(
            f"The recipe {recipe.name!r} asks for a DLA, and {target.name} has none that its TensorRT builds for.",
            got="options.tensorrt.dla",
            fix=f"Targets that have, nearest first: {', '.join(nearest_first(target.name, near))}.",
        )
    if recipe.ladder or precision_of(recipe) not in _DLA_TAKES:
        asked = "a ladder of recipes" if recipe.ladder else precision_of(recipe)
        raise RecipeError(
            f"The recipe {recipe.name!r} asks for a DLA, which computes in float16 and takes no Q/DQ.",
            got=asked,
            fix="Use --recipe fp16 with it, or take options.tensorrt.dla away.",
        )


def _others(target: Target) -> Iterator[Target]:
    """The other releases of the same board, then every target and its releases."""
    for one in list_targets():
        if one.name != target.name:
            yield one
        for release in releases_of(one):
            named = pinned(one, release)
            if named.name != target.name:
                yield named
