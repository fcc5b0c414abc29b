"""The plan of a recipe with a ladder: one plan per rung that can be tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgeopt.compress.registry import STEPS
from edgeopt.compress.training_steps import demand_trainable
from edgeopt.core.errors import BackendError, EdgeOptError
from edgeopt.data.contract import Dataset
from edgeopt.pipeline.plan import Plan, PlannedRung, make_plan
from edgeopt.recipes.check import precision_of
from edgeopt.recipes.ladder import Rung
from edgeopt.recipes.schema import Recipe, step_name, training_of
from edgeopt.targets.schema import Precision, Target

__all__ = ["make_ladder_plan", "with_data"]


def make_ladder_plan(
    rungs: Sequence[Rung],
    *,
    target: Target,
    recipe: Recipe,
    recipe_reason: str,
    measured_here: bool,
    measured_reason: str,
) -> Plan:
    """Plan each rung that can be tried. Of several that share a precision, all but the first mark their candidates.

    Raises:
        BackendError: No rung has a runtime here.
    """
    planned: list[PlannedRung] = []
    errors: list[BackendError] = []
    seen: set[Precision] = set()
    for rung in rungs:
        name, skip, plan = rung.recipe.name, rung.skip, None
        precision = precision_of(rung.recipe)
        if not skip:
            try:
                plan = make_plan(
                    target=target,
                    recipe=rung.recipe,
                    recipe_reason="",
                    measured_here=measured_here,
                    measured_reason=measured_reason,
                    mark=f"@{name}" if precision in seen else "",
                    stages=False,
                )
            except BackendError as error:
                errors.append(error)
                skip = error.what
            else:
                seen.add(precision)
        planned.append(PlannedRung(name=name, plan=plan, skip=skip))
    plans = [rung.plan for rung in planned if rung.plan is not None]
    if not plans:
        raise errors[0]
    candidates = {candidate.id: candidate for plan in plans for candidate in plan.candidates}
    return Plan(
        target=target,
        recipe=recipe,
        recipe_reason=recipe_reason,
        measured_here=measured_here,
        measured_reason=measured_reason,
        candidates=tuple(candidates.values()),
        left_out=tuple(dict.fromkeys(line for plan in plans for line in plan.left_out)),
        rungs=tuple(planned),
    )


def with_data(plan: Plan, data: Dataset | None) -> Plan:
    """Refuse float steps and trainings that target and data do not allow; of a ladder, skip the rung.

    Raises:
        EdgeOptError: The recipe cannot be carried out, or no rung is left, and why.
    """
    if not plan.rungs:
        _demand(plan, data)
        return plan
    rungs: list[PlannedRung] = []
    errors: list[EdgeOptError] = []
    for rung in plan.rungs:
        try:
            if rung.plan is not None:
                _demand(rung.plan, data)
        except EdgeOptError as error:
            errors.append(error)
            rungs.append(PlannedRung(name=rung.name, plan=None, skip=f"{error.what} {error.fix or ''}".rstrip(". ")))
        else:
            rungs.append(rung)
    if errors and all(rung.plan is None for rung in rungs):
        raise errors[0]
    kept = {one.id for rung in rungs if rung.plan is not None for one in rung.plan.candidates}
    return replace(plan, rungs=tuple(rungs), candidates=tuple(one for one in plan.candidates if one.id in kept))


def _demand(plan: Plan, data: Dataset | None) -> None:
    recipe = plan.recipe
    for config in recipe.float_steps:
        STEPS[step_name(config)].check(config, recipe, plan.target, data is not None)
    for config in recipe.steps:
        if training_of(config) is not None:
            demand_trainable(config, data)
