"""The plan of a recipe with a ladder: one plan per rung that can be tried."""

from __future__ import annotations

from collections.abc import Sequence

from edgeopt.core.errors import BackendError
from edgeopt.pipeline.plan import Plan, PlannedRung, make_plan
from edgeopt.recipes.check import precision_of
from edgeopt.recipes.ladder import Rung
from edgeopt.recipes.schema import Recipe
from edgeopt.targets.schema import Precision, Target

__all__ = ["make_ladder_plan"]


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
