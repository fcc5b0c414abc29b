"""The rungs of a recipe with a ladder: loaded, and told apart into those that can be tried and those that cannot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeopt.core.errors import RecipeError
from edgeopt.recipes.check import onnx_conflicts, own_conflicts, precision_of, runtimes_for
from edgeopt.recipes.load import is_of_steps, load_recipe
from edgeopt.recipes.schema import Recipe, step_name
from edgeopt.targets.schema import Target

__all__ = ["Rung", "load_rungs", "rungs_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One recipe of a ladder, with the ladder's limits. ``skip``: why it cannot be tried; empty where it can."""

    recipe: Recipe
    skip: str = ""


def rungs_of(
    ladder: Recipe, target: Target, *, overrides: Sequence[str] = (), has_data: bool, is_onnx: bool
) -> tuple[Rung, ...]:
    """Every rung, in order. Nothing is read but recipes, and nothing is probed.

    Args:
        ladder: A recipe with a ladder.
        target: What it is climbed for.
        overrides: As ``load_rungs`` takes them.
        has_data: Whether the user gave data.
        is_onnx: Whether the model came as ONNX.

    Raises:
        RecipeError: There is no data to judge the rungs with, a rung contradicts itself, or none can be tried.
    """
    if not has_data:
        raise RecipeError(
            f"The recipe {ladder.name!r} cannot be carried out for {target.name}: it tries recipes until one holds the "
            f"limits, which cannot be judged without data; give --data, or use the recipe {target.float_recipe!r}."
        )
    rungs = tuple(
        Rung(recipe=recipe, skip=_why_not(recipe, target, is_onnx=is_onnx)) for recipe in load_rungs(ladder, overrides)
    )
    if all(rung.skip for rung in rungs):
        reasons = dict.fromkeys(rung.skip for rung in rungs)
        raise RecipeError(
            f"The recipe {ladder.name!r} cannot be carried out for {target.name}: no rung of its ladder can be tried: "
            + "\n  ".join(reasons)
        )
    return rungs


def load_rungs(ladder: Recipe, overrides: Sequence[str] = ()) -> tuple[Recipe, ...]:
    """The recipes that a ladder names, each with the ladder's own export, measure, parity, limits and objective.

    Args:
        ladder: A recipe with a ladder.
        overrides: What the user asked for; of them those of steps are applied to every rung that has the step.

    Raises:
        RecipeError: A rung does not ship, is a ladder itself or contradicts itself; or no rung has a step that an
            override names.
    """
    shared = {name: getattr(ladder, name) for name in ("export", "measure", "parity", "limits", "objective")}
    asked = [one for one in overrides if is_of_steps(one)]
    rungs, used = [], set()
    for name in ladder.ladder:
        plain = load_recipe(name)
        if plain.ladder:
            raise RecipeError(
                f"A rung of the ladder of {ladder.name!r} is a ladder itself.",
                got=repr(name),
                fix=f"Name its rungs instead: {', '.join(plain.ladder)}.",
            )
        steps = {step_name(step) for step in plain.steps}
        mine = [one for one in asked if _step_of(one) in steps]
        used |= set(mine)
        rung = (load_recipe(name, mine) if mine else plain).model_copy(update=shared)
        if conflicts := own_conflicts(rung):
            raise RecipeError(f"The recipe {name!r} cannot be carried out: " + "\n  ".join(conflicts))
        rungs.append(rung)
    if unused := [one for one in asked if one not in used]:
        there = dict.fromkeys(step_name(step) for rung in rungs for step in rung.steps)
        raise RecipeError(
            f"No rung of the recipe {ladder.name!r} has the step, so it cannot be changed.",
            got=repr(unused[0]),
            fix=f"Their steps: {', '.join(there)}. An override is applied to every rung that has its step.",
        )
    return tuple(rungs)


def _step_of(override: str) -> str:
    return override.strip().split(".")[1].partition("=")[0]


def _why_not(recipe: Recipe, target: Target, *, is_onnx: bool) -> str:
    precision = precision_of(recipe)
    if not runtimes_for(recipe, target):
        return f"no runtime of {target.name} runs {precision} to advantage"
    if precision == "fp16" and recipe.objective != "size" and target.float_recipe != recipe.name:
        return f"float16 halves the file on {target.name} and not the time; with the objective size it is tried"
    return "; ".join(onnx_conflicts(recipe, target, is_onnx=is_onnx, model_opset=None)).rstrip(".")
