"""The steps of a recipe that work on the PyTorch program, one after another."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.data.contract import Dataset
from edgeopt.model.trained import TrainedModel
from edgeopt.pipeline.context import RunContext
from edgeopt.pipeline.plan import Plan
from edgeopt.recipes.schema import Convert, Recipe, StepConfig, step_name

if TYPE_CHECKING:
    from edgeopt.compress.base import Answers, StepResult

__all__ = ["grid_steps", "run_steps"]


def grid_steps(recipe: Recipe) -> list[StepConfig]:
    """The steps that quantize the last float program, in the recipe's order."""
    floats = recipe.float_steps
    return [config for config in recipe.steps if not isinstance(config, Convert) and config not in floats]


def run_steps(
    context: RunContext,
    model: TrainedModel,
    plan: Plan,
    configs: Sequence[StepConfig],
    *,
    original: TrainedModel | None,
    data: Dataset | None,
    workspace: Path | None,
    answers: Answers | None = None,
) -> StepResult:
    """Run them; what the last one says of layers and ranges holds, events and trainings are collected.

    Args:
        context: Hears how far a step is.
        model: With its program.
        plan: Its target.
        configs: The steps.
        original: The model as it came, with its program, where a step before changed it.
        data: What they calibrate and train on.
        workspace: Where a step keeps what lets a killed run go on; None: nowhere.
        answers: Of ``model`` to the first samples of the tuning split, where they are known.
    """
    from edgeopt.compress.base import StepContext, StepResult
    from edgeopt.compress.registry import STEPS

    result = StepResult(model=model)
    for number, config in enumerate(configs):
        step_context = StepContext(
            data=data,
            target=plan.target,
            seed=context.seed,
            progress=context.progress,
            deadline=context.deadline,
            original=original,
            answers=answers if number == 0 else None,
            workspace=workspace / str(number) if workspace is not None else None,
        )
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning
            )  # torch's own, in copies
            before, result = result, STEPS[step_name(config)].run(result.model, config, step_context)
        result = replace(result, events=(*before.events, *result.events), training=(*before.training, *result.training))
    return result
