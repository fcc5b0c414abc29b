"""A candidate against a baseline: sample by sample, and figure by figure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from edgeopt.bundle.baseline import Recorded
from edgeopt.bundle.gate import GateRow
from edgeopt.bundle.outcomes import Outcomes
from edgeopt.core.errors import BundleError, RecipeError, nearest_first
from edgeopt.core.measurement import Measurement, not_measured
from edgeopt.gate.agreement import agreement_of
from edgeopt.gate.comparable import demand_same_device, demand_same_samples
from edgeopt.gate.slices import WORST_SLICE, judge_slices
from edgeopt.gate.status import Status, message_of, sentence, status_of
from edgeopt.measure.metrics import METRICS, Metric
from edgeopt.measure.paired import paired_drop, slice_rows
from edgeopt.recipes.gate import BaselineLimits

__all__ = ["PREDICTION", "baseline_rows", "gate_row"]

PREDICTION = "prediction"
"""The entry of the outcomes with what each sample was taken for: arrays ``label``, ``predicted``, ``margin``."""


def baseline_rows(
    candidate: Recorded,
    baseline: Recorded,
    limits: BaselineLimits,
    latency: Mapping[str, Measurement],
    *,
    seed: int = 0,
) -> tuple[GateRow, ...]:
    """One row per limit that is set.

    Args:
        latency: ``latency_ratio`` and ``latency_p99_ratio``, where they are limited.

    Raises:
        BundleError: The two were judged on other data, on other devices, or lack what a limit needs.
        RecipeError: A limit names a metric that the two do not have.
    """
    rows = []
    if limits.of_samples:
        outcomes = demand_same_samples(candidate, baseline)
        try:
            rows += _of_samples(*outcomes, limits, seed)
        except (KeyError, IndexError, TypeError, ValueError) as error:  # arrays from a file: anything may be in them
            raise BundleError(
                "The outcomes of single samples do not hold what their metrics keep.",
                got=f"{type(error).__name__}: {error}, in {candidate.directory} or {baseline.directory}",
                fix="Compile both bundles again.",
            ) from error
    for field, limit in (
        ("latency_ratio", limits.latency_ratio),
        ("latency_p99_ratio", limits.latency_p99_ratio),
    ):
        if limit is not None:
            message = _too_noisy(latency[field], limit)
            rows.append(gate_row(f"baseline.{field}", "baseline", latency[field], limit, message=message))
    if limits.peak_memory_ratio is not None:
        demand_same_device(candidate, baseline, "peak memory")
        figure = _ratio(candidate, baseline, "peak_memory_mib", "peak_memory_ratio")
        rows.append(gate_row("baseline.peak_memory_ratio", "baseline", figure, limits.peak_memory_ratio))
    if limits.size_ratio is not None:
        figure = _ratio(candidate, baseline, "size_mib", "size_ratio")
        rows.append(gate_row("baseline.size_ratio", "baseline", figure, limits.size_ratio))
    return tuple(rows)


def gate_row(
    key: str,
    against: str,
    figure: Measurement,
    limit: float,
    *,
    at_most: bool = True,
    status: Status | None = None,
    message: str | None = None,
) -> GateRow:
    """A row, its status and message told from the figure where they are not given."""
    status = status or status_of(figure, limit, at_most=at_most)
    message = message_of(figure, limit, status) if message is None else message
    return GateRow.model_validate(
        {
            "id": key,
            "against": against,
            "name": figure.name,
            "limit": limit,
            "at_most": at_most,
            "figure": figure,
            "status": status,
            "message": message,
            "text": sentence(key, figure, limit, status, message, at_most=at_most),
        }
    )


def _of_samples(mine: Outcomes, theirs: Outcomes, limits: BaselineLimits, seed: int) -> list[GateRow]:
    rows = []
    if limits.drop_pp is not None:
        metric = _metric(mine.primary, "drop_pp", mine, theirs)
        _demand_percent(metric, "drop_pp")
        drop = paired_drop(metric, theirs.candidate[metric.name], mine.candidate[metric.name], seed=seed)
        drop = dataclasses.replace(drop, name="drop_pp")
        rows.append(gate_row("baseline.drop_pp", "baseline", drop, limits.drop_pp))
    for name, limit in limits.drops.items():
        metric = _metric(name, f"drops.{name}", mine, theirs)
        drop = paired_drop(metric, theirs.candidate[name], mine.candidate[name], seed=seed)
        drop = dataclasses.replace(drop, name=f"drop_{name}")
        rows.append(gate_row(f"baseline.drops.{name}", "baseline", drop, limit))
    if limits.worst_slice_drop_pp is not None:
        metric = _metric(mine.primary, WORST_SLICE, mine, theirs)
        _demand_percent(metric, WORST_SLICE)
        kept = theirs.candidate[metric.name], mine.candidate[metric.name]
        slices = slice_rows(metric, *kept, mine.slices, seed=seed)
        figure, status, message = judge_slices(slices, limits.worst_slice_drop_pp)
        limit = limits.worst_slice_drop_pp
        rows.append(gate_row(f"baseline.{WORST_SLICE}", "baseline", figure, limit, status=status, message=message))
    if limits.agreement is not None:
        for whose, outcomes in (("bundle", mine), ("baseline", theirs)):
            if "predicted" not in outcomes.candidate.get(PREDICTION, {}):
                raise BundleError(
                    f"The {whose} holds no predictions, so agreement cannot be told.",
                    got=f"task {outcomes.task}",
                    fix="Leave out the limit on agreement, or compile again with data that has classes.",
                )
        figure = agreement_of(theirs.candidate[PREDICTION], mine.candidate[PREDICTION])
        rows.append(gate_row("baseline.agreement", "baseline", figure, 100 * limits.agreement, at_most=False))
    return rows


def _too_noisy(ratio: Measurement, limit: float) -> str | None:
    """What is said instead of a number of samples where no number of them would settle it."""
    floor = ratio.conditions.get("noise_floor_pct")
    astride = status_of(ratio, limit, at_most=True) == "INCONCLUSIVE"
    if not astride or not isinstance(floor, float) or floor < 100 * abs(limit - 1):
        return None
    return f"This machine is too noisy for the limit: an engine differs from itself by {floor:.2g} %. Measure on a quiet one."


def _metric(name: str, key: str, mine: Outcomes, theirs: Outcomes) -> Metric:
    there = sorted((set(mine.candidate) & set(theirs.candidate)) - {PREDICTION})
    if name not in there:
        raise RecipeError(
            f"The limit `baseline.{key}` needs a metric that was not kept of both the bundle and the baseline.",
            got=repr(name),
            fix=f"Kept of both, nearest first: {', '.join(nearest_first(name, there))}." if there else "None was kept.",
        )
    if name not in METRICS:
        raise RecipeError(
            f"The limit `baseline.{key}` names a metric of your own, which is not computed again from what was kept.",
            got=repr(name),
            fix=f"Hold it against FP32 instead, under limits.drops: {{{name}: …}}.",
        )
    return METRICS[name]()


def _demand_percent(metric: Metric, key: str) -> None:
    if metric.unit != "%":
        raise RecipeError(
            f"The limit `baseline.{key}` is in percentage points, and the data's primary metric is not in percent.",
            got=f"{metric.name} in {metric.unit}",
            fix=f"Set it under baseline.drops: {{{metric.name}: …}}.",
        )


def _ratio(candidate: Recorded, baseline: Recorded, name: str, called: str) -> Measurement:
    """Two recorded figures without sampling error."""
    mine, theirs = candidate.document.figure(name), baseline.document.figure(name)
    for whose, figure in (("bundle", mine), ("baseline", theirs)):
        if figure is None or figure.value is None:
            why = f": {figure.reason}" if figure is not None else ""
            return not_measured(called, "1", f"{name} of the {whose} was not measured{why}")
    if mine is None or theirs is None or mine.value is None or not theirs.value:
        return not_measured(called, "1", f"{name} of the baseline is 0")
    return Measurement(name=called, value=mine.value / theirs.value, unit="1", device=mine.device)
