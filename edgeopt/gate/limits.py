"""Does a candidate hold its limits? An answer only where the interval allows one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from edgeopt.bundle.document import Candidate, LimitRow, Verdict
from edgeopt.core.errors import RecipeError
from edgeopt.core.measurement import Measurement, not_measured
from edgeopt.recipes.schema import Limits

__all__ = ["judge", "point_holds"]

_HOPELESS = 30  # a half-width 30 times the distance to the limit would take 900 times the samples

Status = Literal["PASS", "FAIL", "INCONCLUSIVE"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    """How one field of ``Limits`` reads: the figure it judges, and on which side of the limit is well."""

    field: str
    figure: str
    unit: str
    scale: float = 1.0
    at_most: bool = True
    against_fp32: bool = False


_RULES = (
    _Rule(field="drop_pp", figure="drop_pp", unit="pp", against_fp32=True),
    _Rule(field="latency_ratio", figure="latency_ratio", unit="1", against_fp32=True),
    # The recipe gives a share, the figure is in percent.
    _Rule(field="agreement", figure="agreement_pct", unit="%", scale=100.0, at_most=False, against_fp32=True),
    _Rule(field="size_mib", figure="size_mib", unit="MiB"),
    _Rule(field="peak_memory_mib", figure="peak_memory_mib", unit="MiB"),
)


def judge(candidate: Candidate, limits: Limits) -> Verdict:
    """Hold a candidate's figures against the limits. A figure on the limit itself holds it.

    A limit PASSes where the figure's whole interval holds it, FAILs where none of it does, and is INCONCLUSIVE where
    the limit lies inside the interval or the figure was not measured. Figures without an interval (a size) are taken
    as exact. The FP32 reference holds every limit that compares with FP32. The verdict is the worst of its limits.

    Raises:
        RecipeError: ``agreement`` is not a share.
    """
    if limits.agreement is not None and not 0 <= limits.agreement <= 1:
        raise RecipeError(
            "The limit `agreement` is a share between 0 and 1.", got=limits.agreement, fix="Write 0.99 for 99 %."
        )
    rows = tuple(
        _row(candidate, rule, float(limit) * rule.scale)
        for rule in _RULES
        if (limit := getattr(limits, rule.field)) is not None
    )
    if not rows:
        return Verdict(status="PASS", summary="No limits set.")
    status = _worst([row.status for row in rows])
    telling = [_sentence(row) for row in rows if row.status == status]
    held = sum(row.status == "PASS" for row in rows)
    summary = f"All {held} limits hold." if held > 1 else telling[0]
    return Verdict(status=status, summary=summary if status == "PASS" else " ".join(telling), limits=rows)


def point_holds(row: LimitRow) -> bool:
    """Whether the figure itself holds its limit, whatever its interval; one that was not measured misses nothing."""
    if row.figure.value is None or row.status == "PASS":
        return True
    at_most = next(rule.at_most for rule in _RULES if rule.figure == row.name)
    return row.figure.value <= row.limit if at_most else row.figure.value >= row.limit


def _row(candidate: Candidate, rule: _Rule, limit: float) -> LimitRow:
    figure = candidate.figure(rule.figure)
    status: Status
    if rule.against_fp32 and candidate.role == "reference":
        missing = not_measured(rule.figure, rule.unit, "this is the FP32 reference itself")
        return LimitRow(
            name=rule.figure,
            limit=limit,
            figure=figure or missing,
            status="PASS",
            message="Holds, since this is the FP32 reference itself.",
        )
    if figure is None or figure.value is None:
        why = figure.reason if figure else candidate.reason or f"the candidate is {candidate.status.replace('_', ' ')}"
        figure = figure or not_measured(rule.figure, rule.unit, str(why))
        status, message = "INCONCLUSIVE", "Cannot be told."
    else:
        status = _status(figure, limit, at_most=rule.at_most)
        message = _message(figure, figure.value, limit, status)
    return LimitRow(name=rule.figure, limit=limit, figure=figure, status=status, message=message)


def _status(figure: Measurement, limit: float, *, at_most: bool) -> Status:
    value = figure.value or 0.0
    low, high = (figure.interval.low, figure.interval.high) if figure.interval else (value, value)
    if high <= limit if at_most else low >= limit:
        return "PASS"
    if low > limit if at_most else high < limit:
        return "FAIL"
    return "INCONCLUSIVE"


def _message(figure: Measurement, value: float, limit: float, status: Status) -> str:
    """What the limit and the figure beside it do not say themselves."""
    if status == "PASS":
        return "The whole interval holds." if figure.interval is not None else "Holds."
    if status == "FAIL":
        return "The whole interval misses." if figure.interval is not None else "Missed."
    return f"The limit lies inside the interval. {_how_to_tell(figure, value, limit)}"


def _sentence(row: LimitRow) -> str:
    """A limit in words that stand alone: ``drop_pp: 0.28 pp (95 %: -0.56 to 1.11), at most 1 pp: …``."""
    figure, at_most = row.figure, next(rule.at_most for rule in _RULES if rule.figure == row.name)
    if figure.value is None:
        holds = "; the limit holds for it" if row.status == "PASS" else ""
        return f"{row.name}: not measured: {str(figure.reason).rstrip('.')}{holds}."
    unit = "" if figure.unit == "1" else f" {figure.unit}"
    text = f"{row.name}: {figure.value:.4g}{unit}"
    if figure.interval is not None:
        level = f"{figure.interval.level:.0%}".replace("%", " %")
        text += f" ({level}: {figure.interval.low:.4g} to {figure.interval.high:.4g})"
    text += f", {'at most' if at_most else 'at least'} {row.limit:.4g}{unit}"
    words = {"PASS": "holds.", "FAIL": "missed."}.get(row.status, f"cannot be told. {row.message}")
    return f"{text}: {words}"


def _how_to_tell(figure: Measurement, value: float, limit: float) -> str:
    """How much longer to measure: an interval's half-width falls with the square root of n."""
    interval, n, distance = figure.interval, figure.n, abs(limit - value)
    if interval is None or not n:
        return "Measure again."
    # The half that reaches across the limit decides.
    half = interval.high - value if value <= limit else value - interval.low
    if half > _HOPELESS * distance:
        return "The figure lies on the limit: no affordable number of samples would settle it."
    needed = n * (half / distance) ** 2
    return f"About {_two_digits(needed - n)} more samples like these {n} would settle it, if the figure stays."


def _two_digits(count: float) -> int:
    """Round up to two significant digits: it is an estimate, and should look like one."""
    count = max(1.0, count)
    step = int(10 ** max(0, math.floor(math.log10(count)) - 1))
    return math.ceil(round(count / step, 6)) * step


def _worst(statuses: list[Status]) -> Status:
    order: tuple[Status, ...] = ("FAIL", "INCONCLUSIVE", "PASS")
    return next(status for status in order if status in statuses)
