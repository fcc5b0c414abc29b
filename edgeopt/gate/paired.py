"""Two sides' outcomes on the same samples: how much worse one is, and how often they agree."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import stats

from edgeopt.bundle.document import SliceRow
from edgeopt.bundle.outcomes import Samples
from edgeopt.core.measurement import Condition, Interval, Measurement, not_measured
from edgeopt.core.slices import SliceColumn
from edgeopt.measure import statistics
from edgeopt.measure.metrics import Metric
from edgeopt.measure.metrics.base import drop_of

__all__ = ["agreement_of", "paired_drop", "slice_rows"]


def paired_drop(
    metric: Metric, reference: Samples, candidate: Samples, *, seed: int, rows: np.ndarray | None = None
) -> Measurement:
    """The drop of ``candidate`` against ``reference`` on the same samples, with its interval.

    Right or wrong: Tango's score interval and McNemar's exact p; anything else: the paired BCa bootstrap.

    Args:
        rows: bool [N], which samples count; None: all.

    Returns:
        ``drop_<metric>``, in percentage points for metrics in percent; ``p`` in its conditions where there is one.
    """
    name, unit = f"drop_{metric.name}", "pp" if metric.unit == "%" else metric.unit
    if rows is not None:
        reference, candidate = _only(reference, rows), _only(candidate, rows)
    n = len(next(iter(candidate.values())))
    if n < statistics.FEWEST_SAMPLES:
        return not_measured(name, unit, f"{n} samples are fewer than the {statistics.FEWEST_SAMPLES} an interval needs")
    value = drop_of(metric, metric.value(reference), metric.value(candidate))
    if not np.isfinite(value):
        return not_measured(name, unit, f"{metric.name} is not defined on these {n} samples")
    conditions: dict[str, Condition] = {"metric": metric.name}
    if metric.mean and reference["value"].dtype == np.bool_:
        theirs, mine = reference["value"], candidate["value"]
        if metric.better == "lower":
            theirs, mine = ~theirs, ~mine
        lost, won = int((theirs & ~mine).sum()), int((~theirs & mine).sum())
        shares = statistics.paired_difference(lost, won, n)
        interval: Interval | None = Interval(
            low=shares.low * metric.scale, high=shares.high * metric.scale, level=shares.level, method=shares.method
        )
        conditions |= {"only_reference": lost, "only_candidate": won, "p": statistics.mcnemar_p(lost, won)}
    else:
        interval = statistics.bootstrap(
            lambda weights: drop_of(metric, metric.value(reference, weights), metric.value(candidate, weights)),
            n,
            seed=seed,
        )
        if metric.mean:
            conditions["p"] = _mean_p(reference["value"], candidate["value"])
    if interval is None:
        return not_measured(name, unit, f"{metric.name} is not defined on nearly all resamples of {n} samples")
    return Measurement(name=name, value=value, unit=unit, interval=interval, n=n, conditions=conditions)


def agreement_of(reference: Samples, candidate: Samples) -> Measurement:
    """``agreement_pct``: the share of samples for which both predict the same; arrays ``predicted`` [N]."""
    same, n = int((reference["predicted"] == candidate["predicted"]).sum()), len(candidate["predicted"])
    found = statistics.proportion(same, n)
    interval = Interval(low=100 * found.low, high=100 * found.high, level=found.level, method=found.method)
    return Measurement(name="agreement_pct", value=100 * same / n, unit="%", interval=interval, n=n)


def slice_rows(
    metric: Metric, reference: Samples, candidate: Samples, columns: Mapping[str, SliceColumn], *, seed: int
) -> tuple[SliceRow, ...]:
    """The paired drop in every slice of the test split, p-values adjusted over all of them (Holm)."""
    found: list[tuple[str, str, np.ndarray, Measurement]] = []
    for column, slices in columns.items():
        for code, value in enumerate(slices.values):
            rows = slices.codes == code
            if rows.any():
                drop = paired_drop(metric, reference, candidate, seed=seed, rows=rows)
                found.append((column, value, rows, drop))
    tested = [index for index, (*_, drop) in enumerate(found) if "p" in drop.conditions]
    adjusted = dict(
        zip(tested, statistics.holm([float(found[i][3].conditions["p"] or 0) for i in tested]), strict=True)
    )
    return tuple(
        SliceRow(
            column=column,
            value=value,
            samples=int(rows.sum()),
            figure=_figure(metric, _only(candidate, rows), int(rows.sum())),
            drop=drop,
            p_adjusted=Measurement(name="p_adjusted", value=adjusted[index], unit="1")
            if index in adjusted
            else not_measured("p_adjusted", "1", drop.reason or "the metric has no test"),
        )
        for index, (column, value, rows, drop) in enumerate(found)
    )


def _figure(metric: Metric, samples: Samples, n: int) -> Measurement:
    value = metric.value(samples)
    if not np.isfinite(value):
        return not_measured(metric.name, metric.unit, f"it is not defined on these {n} samples")
    return Measurement(name=metric.name, value=value, unit=metric.unit, n=n)


def _mean_p(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Student's paired t; 1 where no sample differs."""
    difference = np.asarray(candidate, np.float64) - np.asarray(reference, np.float64)
    return float(stats.ttest_1samp(difference, 0.0).pvalue) if np.ptp(difference) else float(difference[0] == 0)


def _only(samples: Samples, rows: np.ndarray) -> Mapping[str, np.ndarray]:
    return {name: array[rows] for name, array in samples.items()}
