"""The table of groups alone, without a search: what ``edgeopt sensitivity`` prints."""

from __future__ import annotations

from dataclasses import replace

from edgeopt.bundle.document import MixedSection
from edgeopt.core.errors import RecipeError
from edgeopt.core.events import Event, ProgressListener, ignore_progress
from edgeopt.pipeline.compile import prepared
from edgeopt.pipeline.mixed import Timing, time_groups
from edgeopt.pipeline.options import CompileOptions
from edgeopt.pipeline.samples import parity_inputs
from edgeopt.pipeline.sensitivity import TrialsOnUse, section_of, sensitivity_table, tuning_split
from edgeopt.recipes.schema import Mixed

__all__ = ["run_sensitivity"]


def run_sensitivity(
    options: CompileOptions,
    *,
    latency: bool = False,
    complement: bool = False,
    progress: ProgressListener = ignore_progress,
) -> tuple[MixedSection, tuple[Event, ...]]:
    """Score each group of layers in each candidate precision.

    Args:
        options: As for ``compile``; the recipe has a ``mixed`` step, whose budget is not read.
        latency: Also time each group, where this machine may stand for the target.
        complement: Also score everything but each group.

    Returns:
        The table, most sensitive first, and what its reader must know.

    Raises:
        RecipeError: The recipe has no ``mixed`` step.
        EdgeOptError: The model, the data or the target do not fit.
    """
    with prepared(replace(options, output=None), progress, writes=False) as given:
        run, config = given, given.plan.recipe.step(Mixed)
        if config is None:
            raise RecipeError(
                "Sensitivity is measured for a mixed step.",
                got=f"recipe {run.plan.recipe.name!r} without one",
                fix="Use the recipe int8-mixed, or one of yours with a mixed step.",
            )
        samples = parity_inputs(run.loaded.model, run.data, run.plan.recipe.parity.samples, options.seed)
        if given.plan.recipe.float_steps:  # it is the last float model that is quantized
            run = given.at(given.stages(given.plan, samples)[-1])
        trials = TrialsOnUse(run=run, plan=run.plan, config=config, split=tuning_split(run))
        table = sensitivity_table(trials, complement=complement)
        timing = Timing(why="--latency was not given")
        if latency:
            timing = time_groups(run, run.plan, samples, config, table.groups)
            if timing.fastest is None:
                run.context.note([Event(kind="warning", stage="sensitivity", message=f"Not timed: {timing.why}.")])
        section = section_of(trials, table, timing.runtimes, timing.words)
        worst = [p for p in config.candidates if p != "float"][-1]

        def divergence(name: str) -> float:
            return -table.alone[name][worst].divergence

        rows = tuple(sorted(section.groups, key=lambda row: divergence(row.name)))
        return section.model_copy(update={"groups": rows}), tuple(run.context.events)
