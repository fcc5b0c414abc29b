"""The worst slice of a test split against a limit, with many slices looked at."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from scipy import stats

from edgeopt.bundle.document import SliceRow
from edgeopt.core.measurement import Measurement, not_measured
from edgeopt.gate.status import Status, how_to_tell, status_of
from edgeopt.measure.statistics import exceeds_p, holm

__all__ = ["WORST_SLICE", "judge_slices"]

WORST_SLICE = "worst_slice_drop_pp"
_ALPHA = 0.025  # one side of the 95 % that each interval has


def judge_slices(slices: Sequence[SliceRow], limit: float, why_none: str = "") -> tuple[Measurement, Status, str]:
    """Hold every slice's drop against one limit.

    - FAIL: the p-value of "this slice's drop is no more than the limit", adjusted for the number of slices (Holm), is
      below 0.025, the side of a 95 % interval. Among many slices that sit at the limit one lies outside by chance; the
      adjustment keeps that below 2.5 %. Of one slice alone it says what its interval says.
    - PASS: every slice's interval is inside. All must hold at once, so there is nothing to adjust (an
      intersection-union test: Berger, Technometrics 24, 1982).
    - INCONCLUSIVE: else. Slices too small for an interval are counted in the message and do not decide, as no slice
      of their size could pass or fail; where all are, nothing can be told.

    Args:
        slices: With their paired drops, in the data's primary metric.
        limit: Percentage points.
        why_none: Why there are no slices.

    Returns:
        The drop of the slice that decided, as ``worst_slice_drop_pp`` with the condition ``slice``; status; message.
    """
    told = [row for row in slices if row.drop.value is not None and row.drop.interval is not None]
    small = f" {len(slices) - len(told)} slices are too small to judge." if len(told) < len(slices) else ""
    if not told:
        reason = f"all {len(slices)} slices are too small for an interval" if slices else why_none
        missing = not_measured(WORST_SLICE, "pp", reason or "the test split was not told apart into slices")
        return missing, "INCONCLUSIVE", "Cannot be told."
    statuses = {id(row): status_of(row.drop, limit, at_most=True) for row in told}
    adjusted = dict(zip(map(id, told), holm([_p(row.drop, limit) for row in told]), strict=True))
    failing = [row for row in told if adjusted[id(row)] < _ALPHA]
    if failing:
        decisive = max(failing, key=_drop)
        count = f"{len(failing)} of {len(told)} slices miss" if len(failing) > 1 else f"1 of {len(told)} slices misses"
        return _figure(decisive, adjusted), "FAIL", f"{count}, after Holm's adjustment.{small}"
    astride = [row for row in told if statuses[id(row)] != "PASS"]
    if not astride:
        decisive = max(told, key=lambda row: row.drop.interval.high if row.drop.interval else 0.0)
        return _figure(decisive, adjusted), "PASS", f"All {len(told)} slices hold.{small}"
    decisive = max(astride, key=_drop)
    if statuses[id(decisive)] == "FAIL":
        p = adjusted[id(decisive)]
        message = (
            f"Alone it misses; among {len(told)} slices that may be chance (Holm's p {p:.3g}, below {_ALPHA} is none)."
        )
    else:
        message = f"The limit lies inside the interval of {len(astride)} of {len(told)} slices; in this one: "
        message += how_to_tell(decisive.drop, limit)
    return _figure(decisive, adjusted), "INCONCLUSIVE", message + small


def _p(drop: Measurement, limit: float) -> float:
    """Of "the drop is no more than the limit", one-sided.

    Of right and wrong answers Tango's, from the counts; else from the interval, taken for normal on the limit's side:
    0.025 where the limit is its lower end, as it must be.
    """
    value, interval = drop.value, drop.interval
    if value is None or interval is None:
        return 1.0
    lost, won = drop.conditions.get("only_reference"), drop.conditions.get("only_candidate")
    if isinstance(lost, int) and isinstance(won, int) and drop.n:
        return exceeds_p(lost, won, drop.n, limit / (100 if drop.unit == "pp" else 1))
    side = value - interval.low if value > limit else interval.high - value
    if side <= 0:
        return float(value <= limit)
    return float(stats.norm.sf((value - limit) / side * stats.norm.ppf(0.5 + interval.level / 2)))


def _drop(row: SliceRow) -> float:
    return row.drop.value or 0.0


def _figure(row: SliceRow, adjusted: Mapping[int, float]) -> Measurement:
    conditions = {**row.drop.conditions, "slice": f"{row.column} {row.value}", "p_holm": adjusted[id(row)]}
    return dataclasses.replace(row.drop, name=WORST_SLICE, conditions=conditions)
