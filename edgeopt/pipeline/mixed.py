"""The search for mixed precision: sensitivities, times, one integer program per budget, each answer scored for real."""

from __future__ import annotations

import glob
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.bundle.document import FrontRow, MixedSection
from edgeopt.core.errors import RecipeError
from edgeopt.core.events import Event
from edgeopt.core.measurement import Measurement
from edgeopt.pipeline import records
from edgeopt.pipeline.graphs import Graph, float_graph, quantized_graph
from edgeopt.pipeline.group_latency import GroupTimes, measure_groups, time_assignments
from edgeopt.pipeline.plan import Plan
from edgeopt.pipeline.run import Run
from edgeopt.pipeline.samples import ParityInputs
from edgeopt.pipeline.sensitivity import (
    Table,
    TrialsOnUse,
    figures_of,
    section_of,
    sensitivity_table,
    storable,
    tuning_split,
)
from edgeopt.recipes.schema import LayerPrecision, Mixed, ParityLimits, Quantize

if TYPE_CHECKING:
    from edgeopt.compress.groups import Group
    from edgeopt.compress.score import Score

__all__ = ["Timing", "resolve_mixed", "time_groups"]

_FRACTIONS = tuple(0.5**k for k in range(1, 9))  # of the all-int8 sensitivity: the budgets that are tried first
_REFINED = 4  # halvings between the last budget that fails and the first that holds
_LATENCIES = (1.0, 0.97, 0.94, 0.9, 0.85, 0.8)  # of a latency budget: sums of deltas are only a model
_ANYTHING = ParityLimits(int8_sqnr_db=-1e9, int8_top1_agreement=0, export_sqnr_db=-1e9, float_max_abs=1e9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """What is known about time.

    Attributes:
        runtimes: One entry per runtime that was timed; empty where none was, then ``why`` says why.
        fp32, int8: The graphs that were timed; None where none was.
    """

    runtimes: tuple[GroupTimes, ...] = ()
    why: str = ""
    fp32: Graph | None = None
    int8: Graph | None = None

    @property
    def fastest(self) -> GroupTimes | None:
        """The runtime whose all-int8 is fastest: the one that would be shipped."""
        return min(self.runtimes, key=lambda one: one.p50_ms, default=None)

    @property
    def words(self) -> str:
        """For the report."""
        if self.fastest is None:
            return f"not timed ({self.why}): the share of MACs in float stands for time"
        return f"p50 with the group in float over all int8, {', '.join(t.runtime for t in self.runtimes)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Point:
    assignment: tuple[LayerPrecision, ...]
    sensitivity: float
    cost: float
    score: Score
    ratio: Measurement | None = None


def resolve_mixed(run: Run, plan: Plan, samples: ParityInputs) -> Plan:
    """The plan with its ``mixed`` step replaced by a ``quantize`` step that assigns each layer's precision.

    The search goes into ``run.context.mixed``. A plan without such a step is returned as it is.

    Raises:
        RecipeError: No assignment holds the budget; or it is a latency, and nothing can be timed.
    """
    config = plan.recipe.step(Mixed)
    if config is None:
        return plan
    if config.budget.latency_ratio is not None and not plan.measured_here:
        raise RecipeError(
            "A latency budget needs latencies, and they are not measured on the target.",
            got=f"budget.latency_ratio={config.budget.latency_ratio:g}; {plan.measured_reason}",
            fix="Give budget.drop_pp instead (and budget.latency_ratio=null), or run edgeopt on the device.",
        )
    trials = TrialsOnUse(run=run, plan=plan, config=config, split=tuning_split(run))
    table = sensitivity_table(trials)
    if config.metric == "loss" and table.reference.loss is None:
        raise RecipeError(
            "The metric loss needs labels.", got="data without labels", fix="Use metric: divergence, or give labels."
        )
    timing = time_groups(run, plan, samples, config, table.groups)
    search = _Search(run=run, plan=plan, samples=samples, config=config, trials=trials, table=table, timing=timing)
    section, assignment = search.result()
    run.context.mixed.append(section)
    event = Event(kind="note" if timing.fastest else "fallback", stage="mixed", message=section.summary)
    run.context.note([event])
    chosen = {group.name: p for group, p in zip(table.groups, assignment, strict=True)}
    return _with_step(plan, config.resolved(_assign(table.groups, chosen, config)))


def time_groups(run: Run, plan: Plan, samples: ParityInputs, config: Mixed, groups: Sequence[Group]) -> Timing:
    """Time the groups where this machine may stand for the target; else say why not."""
    if not plan.measured_here or run.data is None:
        return Timing(why=plan.measured_reason or "no data")
    if plan.precision != "int8":
        return Timing(why=f"the recipe makes {plan.precision}, and variants are timed in int8 only")
    quiet = replace(run.context, events=[], parity=[])  # a graph that is timed, not shipped: its accuracy is no matter
    loose = _with_step(plan, _plainest(config))
    loose = replace(loose, recipe=loose.recipe.model_copy(update={"parity": _ANYTHING}))
    fp32 = float_graph(quiet, run.loaded, plan, samples)
    int8 = quantized_graph(quiet, run.loaded, loose, samples, data=run.data, base=fp32)
    times = measure_groups(run, plan, samples, config=config, groups=groups, fp32=fp32, int8=int8)
    if not times:
        return Timing(why="no runtime ran the int8 graph")
    return Timing(runtimes=tuple(times), fp32=fp32, int8=int8)


def _with_step(plan: Plan, step: Quantize) -> Plan:
    """The plan with ``step`` in the place of its ``mixed`` step."""
    steps = tuple(step if isinstance(other, Mixed) else other for other in plan.recipe.steps)
    return replace(plan, recipe=plan.recipe.model_copy(update={"steps": steps}))


def _plainest(config: Quantize) -> Quantize:
    """The same layers in int8, without what makes them more accurate: times are the same."""
    return Quantize(precision="int8", observer="minmax", bias_correction=False, skip=config.skip, assign=config.assign)


def _assign(groups: Sequence[Group], chosen: dict[str, LayerPrecision], config: Mixed) -> dict[str, LayerPrecision]:
    """What differs from the step's own precision, by layer."""
    return {
        glob.escape(layer): chosen[group.name]
        for group in groups
        for layer in group.layers
        if chosen[group.name] != config.precision
    }


@dataclass(kw_only=True)
class _Search:
    """One budget on one table."""

    run: Run
    plan: Plan
    samples: ParityInputs
    config: Mixed
    trials: TrialsOnUse
    table: Table
    timing: Timing

    def result(self) -> tuple[MixedSection, tuple[LayerPrecision, ...]]:
        """Walk the front, choose, describe."""
        points = self._by_latency() if self.config.budget.latency_ratio is not None else self._by_accuracy()
        holding = [point for point in points if self._holds(point) and not self._is_float(point)]
        if not holding:
            raise self._nobody_can(points)
        if self.config.budget.latency_ratio is not None:
            best = min(holding, key=lambda point: (point.score.divergence, point.cost))
        else:
            best = min(holding, key=lambda point: (point.cost, point.score.divergence))
        chosen = {group.name: str(p) for group, p in zip(self.table.groups, best.assignment, strict=True)}
        section = section_of(self.trials, self.table, self.timing.runtimes, self.timing.words, chosen=chosen)
        summary = self._summary(best)
        front = tuple(self._row(point, chosen=point is best) for point in sorted(points, key=lambda p: p.cost))
        budget = self.config.budget.model_dump(exclude_none=True)
        return section.model_copy(update={"budget": budget, "front": front, "summary": summary}), best.assignment

    def _by_accuracy(self) -> list[_Point]:
        """From all int8 towards all float; refined where the budget is crossed."""
        whole = sum(max(self._sensitivity(g, p) for p in self._precisions) for g in self.table.groups)
        budgets = [math.inf, *(whole * fraction for fraction in _FRACTIONS), 0.0]
        found = {budget: self._point(self._fastest(budget)) for budget in budgets}
        failed = [b for b in budgets if not self._holds(found[b])]
        held = [b for b in budgets if self._holds(found[b])]
        high, low = (min(min(failed, default=math.inf), whole), max(held, default=0.0))
        for _ in range(_REFINED if failed and held and low < high else 0):
            middle = (low + high) / 2
            found[middle] = self._point(self._fastest(middle))
            low, high = (middle, high) if self._holds(found[middle]) else (low, middle)
        return self._timed(_distinct(list(found.values())))

    def _by_latency(self) -> list[_Point]:
        """The most accurate within the budget and within a little less, and all int8; each is timed."""
        from edgeopt.compress.budget import Choice, choose

        fastest, budget = self.timing.fastest, self.config.budget.latency_ratio
        if fastest is None or budget is None or not fastest.ratio.value:
            raise RecipeError(
                "A latency budget needs latencies, and nothing could be timed.",
                got=self.timing.why or "no runtime",
                fix="Give budget.drop_pp instead.",
            )
        found = [self._fastest(math.inf)]
        for share in _LATENCIES:
            loads = budget * share / fastest.ratio.value - 1.0
            taken = choose(
                [
                    [
                        Choice(cost=self._sensitivity(g, p), load=self._cost(g, p), tie=float(p == "float"))
                        for p in self.config.candidates
                    ]
                    for g in self.table.groups
                ],
                loads,
            )
            if taken is not None:
                found.append(tuple(self.config.candidates[i] for i in taken))
        return self._timed(_distinct([self._point(assignment) for assignment in found]))

    @property
    def _precisions(self) -> list[LayerPrecision]:
        return [p for p in self.config.candidates if p != "float"]

    def _fastest(self, budget: float) -> tuple[LayerPrecision, ...]:
        from edgeopt.compress.budget import Choice, choose

        macs = sum(group.macs for group in self.table.groups) or 1
        taken = choose(
            [
                [
                    Choice(
                        cost=self._cost(group, p),
                        load=self._sensitivity(group, p),
                        # what costs no time that can be told is left in int8, which is smaller
                        tie=group.macs / macs if p == "float" else 0.0,
                    )
                    for p in self.config.candidates
                ]
                for group in self.table.groups
            ],
            budget,
        )
        if taken is None:
            raise AssertionError("all float has no sensitivity and fits every budget")
        return tuple(self.config.candidates[i] for i in taken)

    def _sensitivity(self, group: Group, precision: LayerPrecision) -> float:
        if precision == "float":
            return 0.0
        score = self.table.alone[group.name][precision]
        if self.config.metric == "divergence":
            return max(0.0, score.divergence)
        return max(0.0, (score.loss or 0.0) - (self.table.reference.loss or 0.0))

    def _cost(self, group: Group, precision: LayerPrecision) -> float:
        """Of float over int8: its change of latency, or its share of MACs; the other precisions run int8's kernels."""
        if precision != "float":
            return 0.0
        if (fastest := self.timing.fastest) is not None:
            return float(fastest.deltas[group.name].conditions["counts"] or 0.0)
        return group.macs / (sum(other.macs for other in self.table.groups) or 1)

    def _point(self, assignment: tuple[LayerPrecision, ...]) -> _Point:
        pairs = list(zip(self.table.groups, assignment, strict=True))
        cost = sum(self._cost(group, p) for group, p in pairs)
        return _Point(
            assignment=assignment,
            sensitivity=sum(self._sensitivity(group, p) for group, p in pairs),
            cost=cost + 1.0 if self.timing.fastest else cost,
            score=self._score({group.name: p for group, p in pairs}),
        )

    def _score(self, chosen: dict[str, LayerPrecision]) -> Score:
        """The whole assignment on the tuning split, found again where an earlier run scored it."""
        from edgeopt.compress.score import Score

        key = {"table": self.table.key, "assignment": dict(sorted(chosen.items()))}

        def build(folder: Path) -> None:
            records.write(folder / "score.json", Score, storable(self.trials.open().score(chosen)))

        folder = self.run.context.stage("assignment", "score assignments", key, build)
        return records.read(folder / "score.json", Score)

    def _timed(self, points: list[_Point]) -> list[_Point]:
        """The same points with the latency of each, where it can be had."""
        fastest, fp32, int8 = self.timing.fastest, self.timing.fp32, self.timing.int8
        if fastest is None or fp32 is None or int8 is None:
            return points
        floats = {
            str(i): [g for g, p in zip(self.table.groups, point.assignment, strict=True) if p == "float" and g.macs]
            for i, point in enumerate(points)
            if not self._is_float(point)
        }
        ratios = time_assignments(
            self.run,
            self.plan,
            self.samples,
            config=self.config,
            runtime=fastest.runtime,
            fp32=fp32,
            int8=int8,
            floats=floats,
        )
        return [replace(point, ratio=ratios.get(str(i))) for i, point in enumerate(points)]

    def _holds(self, point: _Point) -> bool:
        budget, share = self.config.budget, 1 - self.config.margin
        if budget.latency_ratio is not None:
            ratio = point.ratio
            return ratio is not None and ratio.value is not None and ratio.value <= budget.latency_ratio
        if budget.divergence is not None:
            return point.score.divergence <= share * budget.divergence
        return self._drop_pp(point.score) <= share * (budget.drop_pp or 0.0) + 1e-9

    def _drop_pp(self, score: Score) -> float:
        """Without labels every changed prediction counts as an error."""
        if score.accuracy is not None and self.table.reference.accuracy is not None:
            return 100 * (self.table.reference.accuracy - score.accuracy)
        if score.agreement is not None:
            return 100 * (1 - score.agreement)
        raise RecipeError(
            "A drop budget needs predictions, and the model's outputs are no class scores.",
            got="data without labels",
            fix="Give budget.divergence (relative squared error of the outputs) and budget.drop_pp=null.",
        )

    def _is_float(self, point: _Point) -> bool:
        return all(p == "float" for p in point.assignment)

    def _row(self, point: _Point, *, chosen: bool) -> FrontRow:
        floats = tuple(g.name for g, p in zip(self.table.groups, point.assignment, strict=True) if p == "float")
        words = f"{len(floats)} of {len(point.assignment)} groups float"
        label = "all int8" if not floats else "all float" if len(floats) == len(point.assignment) else words
        return FrontRow(
            label=label,
            groups_float=floats,
            predicted_sensitivity=point.sensitivity,
            predicted_cost=point.cost,
            figures=(
                *figures_of(point.score, self.table.reference, self.run.context.host, split=self.trials.split.name),
                *([replace(point.ratio, name="latency_ratio")] if point.ratio is not None else []),
            ),
            holds=self._holds(point) or (self._is_float(point) and self.config.budget.latency_ratio is None),
            chosen=chosen,
        )

    def _summary(self, best: _Point) -> str:
        row = self._row(best, chosen=True)
        left = ", ".join(row.groups_float[:6]) + (" and more" if len(row.groups_float) > 6 else "")
        what = f"In float: {left}" if left else "Every group stays in int8"
        drop = row.figure("drop_pp") or row.figure("agreement_pct")
        scored = "" if drop is None else f"; {drop.name} {drop.value:.3g} on the {self.trials.split.name} split"
        return f"{what} ({row.label}){scored}. Time: {self.timing.words}."

    def _nobody_can(self, points: Sequence[_Point]) -> RecipeError:
        real = [point for point in points if not self._is_float(point)]
        budget = self.config.budget
        worst = sorted(self.table.groups, key=lambda g: -min(self._sensitivity(g, p) for p in self._precisions))[:3]
        if budget.latency_ratio is not None:
            timed = [p for p in real if p.ratio is not None and p.ratio.value is not None]
            best = min((p.ratio.value for p in timed if p.ratio and p.ratio.value is not None), default=math.nan)
            binds, figure = "even with every group in int8", f"best p50 ratio {best:.3g}"
            wanted, fix = f"latency_ratio {budget.latency_ratio:g}", "Raise the budget, or choose a faster runtime."
            if best >= 1:
                return self._float_is_fastest(f"{wanted}; {figure}")
        elif not real and self.timing.fastest is not None:
            return self._float_is_fastest(self.timing.words)
        else:
            closest = min(real, key=lambda p: p.score.divergence, default=None)
            figure = "nothing but all float" if closest is None else f"best divergence {closest.score.divergence:.3g}"
            if closest is not None and budget.drop_pp is not None:
                figure = f"best drop {self._drop_pp(closest.score):.3g} pp"
            binds = "the most sensitive groups are " + ", ".join(group.name for group in worst)
            wanted = ", ".join(
                f"{k} {v:g} less {self.config.margin:.0%}" for k, v in budget.model_dump(exclude_none=True).items()
            )
            fix = (
                f"Raise the budget, train with a qat step, or use the recipe {self.plan.target.float_recipe!r}, which only "
                "all float would come to."
            )
        return RecipeError(f"No mixed precision holds the budget: {binds}.", got=f"{wanted}; {figure}", fix=fix)

    def _float_is_fastest(self, got: str) -> RecipeError:
        where = f" on {self.timing.fastest.runtime}" if self.timing.fastest else ""
        return RecipeError(
            f"Float is the fastest{where}: int8 gains this model no time, so that there is nothing to mix.",
            got=got,
            fix=f"Use the recipe {self.plan.target.float_recipe!r}, or another runtime; int8-ptq where size is what counts.",
        )


def _distinct(points: Sequence[_Point]) -> list[_Point]:
    return list({point.assignment: point for point in points}.values())
