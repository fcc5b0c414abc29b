"""Two models on the same samples: how much worse one is, over the test split and over each part of it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import stats

from edgeopt.bundle.accuracy import SliceRow, drop_name
from edgeopt.bundle.outcomes import Samples
from edgeopt.core.errors import DataError
from edgeopt.core.measurement import Condition, Interval, Measurement, not_measured
from edgeopt.core.slices import SliceColumn
from edgeopt.measure import statistics
from edgeopt.measure.metrics import Metric, drop_of, weighted

__all__ = ["drop_unit", "paired_drop", "slice_rows"]

_COSTLY = 1000  # resamples of figures that must be computed anew on each
_IN_SLICES = 300  # likewise, of each slice


def drop_unit(metric: Metric) -> str:
    """Percentage points for percent."""
    return "pp" if metric.unit == "%" else metric.unit


def paired_drop(
    metric: Metric, reference: Samples, candidate: Samples, *, seed: int = 0, rows: np.ndarray | None = None
) -> Measurement:
    """The drop of ``candidate`` against ``reference`` on the same samples, with its interval: positive is worse.

    Right or wrong: Tango's score interval and McNemar's exact p; anything else: the paired BCa bootstrap, and for means
    the p of Student's paired t.

    Args:
        metric: What kept both records.
        rows: bool [N], which samples count; None: all.

    Raises:
        DataError: The two do not hold the same number of samples.

    Returns:
        Its name is ``drop_name``; ``p``, two-sided, of "no drop" is in the conditions where there is one.
    """
    name, unit = drop_name(metric.name), drop_unit(metric)
    lengths = {len(array) for array in (*reference.values(), *candidate.values())}
    if len(lengths) > 1:
        raise DataError(
            "Samples can be paired only where both models were judged on the same ones.",
            got=f"{' and '.join(map(str, sorted(lengths)))} samples",
        )
    if rows is not None:
        reference, candidate = _only(reference, rows), _only(candidate, rows)
    n = len(next(iter(candidate.values())))
    if n < statistics.FEWEST_SAMPLES:
        return not_measured(name, unit, f"{n} samples are fewer than the {statistics.FEWEST_SAMPLES} an interval needs")
    value = drop_of(metric, metric.value(reference), metric.value(candidate))
    if not np.isfinite(value):
        return not_measured(name, unit, f"{metric.name} is not defined on these {n} samples")
    conditions: dict[str, Condition] = {"metric": metric.name}
    interval: Interval | None
    if metric.mean and reference["value"].dtype == np.bool_:
        theirs, mine = reference["value"], candidate["value"]
        if metric.better == "lower":
            theirs, mine = ~theirs, ~mine
        lost, won = int((theirs & ~mine).sum()), int((~theirs & mine).sum())
        shares = statistics.paired_difference(lost, won, n)
        interval = shares.scaled(metric.scale)
        conditions |= {"only_reference": lost, "only_candidate": won, "p": statistics.mcnemar_p(lost, won)}
    elif metric.mean:
        sign = 1.0 if metric.better == "higher" else -1.0
        differences = sign * (reference["value"].astype(np.float64) - candidate["value"].astype(np.float64))
        interval = statistics.bootstrap_mean(differences, seed=seed, scale=metric.scale)
        conditions["p"] = _mean_p(differences)
    else:
        of_reference, of_candidate = weighted(metric, reference), weighted(metric, candidate)
        interval = statistics.bootstrap(
            lambda weights: drop_of(metric, of_reference(weights), of_candidate(weights)),
            n,
            seed=seed,
            resamples=_COSTLY if rows is None else _IN_SLICES,
        )
    if interval is None:
        return not_measured(name, unit, f"{metric.name} is not defined on nearly all resamples of {n} samples")
    return Measurement(name=name, value=value, unit=unit, interval=interval, n=n, conditions=conditions)


def slice_rows(
    metric: Metric, reference: Samples, candidate: Samples, columns: Mapping[str, SliceColumn], *, seed: int = 0
) -> tuple[SliceRow, ...]:
    """The paired drop in every part of the test split, the worst first; p-values adjusted over all parts (Holm).

    Args:
        columns: Properties of the samples; a part that no sample is in is left out.
    """
    found: list[tuple[str, str, np.ndarray, Measurement]] = []
    for column, slices in columns.items():
        for code, value in enumerate(slices.values):
            rows = slices.codes == code
            if rows.any():
                drop = paired_drop(metric, reference, candidate, seed=seed, rows=rows)
                found.append((column, value, rows, drop))
    tested = [index for index, (*_, drop) in enumerate(found) if "p" in drop.conditions]
    p_values = [float(found[index][3].conditions["p"] or 0.0) for index in tested]
    adjusted = dict(zip(tested, statistics.holm(p_values), strict=True))
    made = [
        SliceRow(
            column=column,
            value=value,
            samples=int(rows.sum()),
            figure=_figure(metric, _only(candidate, rows), int(rows.sum())),
            drop=drop,
            p_adjusted=Measurement(name="p_adjusted", value=adjusted[index], unit="1", conditions={"method": "Holm"})
            if index in adjusted
            else not_measured("p_adjusted", "1", drop.reason or f"there is no test for {metric.name}"),
        )
        for index, (column, value, rows, drop) in enumerate(found)
    ]
    return tuple(sorted(made, key=lambda row: -np.inf if row.drop.value is None else row.drop.value, reverse=True))


def _figure(metric: Metric, samples: Samples, n: int) -> Measurement:
    value = metric.value(samples)
    if not np.isfinite(value):
        return not_measured(metric.name, metric.unit, f"it is not defined on these {n} samples")
    return Measurement(name=metric.name, value=value, unit=metric.unit, n=n)


def _mean_p(differences: np.ndarray) -> float:
    """Student's paired t; 1 where no sample differs."""
    if np.ptp(differences) == 0:
        return float(differences[0] == 0)
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def _only(samples: Samples, rows: np.ndarray) -> Mapping[str, np.ndarray]:
    return {name: array[rows] for name, array in samples.items()}
