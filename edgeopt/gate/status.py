"""A figure against a limit: inside, outside, or astride, and how to tell then."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from edgeopt.core.measurement import Measurement

__all__ = ["Status", "how_to_tell", "message_of", "sentence", "status_of", "worst"]

Status = Literal["PASS", "FAIL", "INCONCLUSIVE"]

_MISSED = ("The whole interval misses.", "Missed.")
_HOPELESS = 30  # a half-width 30 times the distance to the limit would take 900 times the samples


def status_of(figure: Measurement, limit: float, *, at_most: bool) -> Status:
    """PASS where the whole interval holds, FAIL where none of it does; on the limit is inside it.

    A figure without an interval (a size) is exact; one that was not measured is INCONCLUSIVE.
    """
    if figure.value is None:
        return "INCONCLUSIVE"
    low, high = (figure.interval.low, figure.interval.high) if figure.interval else (figure.value, figure.value)
    if high <= limit if at_most else low >= limit:
        return "PASS"
    if low > limit if at_most else high < limit:
        return "FAIL"
    return "INCONCLUSIVE"


def message_of(figure: Measurement, limit: float, status: Status) -> str:
    """What the limit and the figure beside it do not say themselves."""
    if figure.value is None:
        return "Cannot be told."
    if status == "PASS":
        return "The whole interval holds." if figure.interval is not None else "Holds."
    if status == "FAIL":
        return _MISSED[0] if figure.interval is not None else _MISSED[1]
    return f"The limit lies inside the interval. {how_to_tell(figure, limit)}"


def sentence(name: str, figure: Measurement, limit: float, status: Status, message: str, *, at_most: bool) -> str:
    """A limit in words that stand alone: ``drop_pp: 0.28 pp (95 %: -0.56 to 1.11), at most 1 pp: …``."""
    if figure.value is None:
        holds = "; the limit holds for it" if status == "PASS" else ""
        return f"{name}: not measured: {str(figure.reason).rstrip('.')}{holds}."
    unit = "" if figure.unit == "1" else f" {figure.unit}"
    text = f"{name}: {figure.value:.4g}{unit}"
    if figure.interval is not None:
        level = f"{figure.interval.level:.0%}".replace("%", " %")
        text += f" ({level}: {figure.interval.low:.4g} to {figure.interval.high:.4g})"
    if where := figure.conditions.get("slice"):
        text += f" in {where}"
    text += f", {'at most' if at_most else 'at least'} {limit:.4g}{unit}"
    missed = "missed." if message in _MISSED else f"missed. {message}"
    words = {"PASS": "holds.", "FAIL": missed}.get(status, f"cannot be told. {message}")
    return f"{text}: {words}"


def how_to_tell(figure: Measurement, limit: float) -> str:
    """How much longer to measure: an interval's half-width falls with the square root of n."""
    interval, n, value = figure.interval, figure.n, figure.value
    if interval is None or not n or value is None:
        return "Measure again."
    distance = abs(limit - value)
    # The half that reaches across the limit decides.
    half = interval.high - value if value <= limit else value - interval.low
    if half > _HOPELESS * distance:
        return "The figure lies on the limit: no affordable number of samples would settle it."
    needed = n * (half / distance) ** 2
    return f"About {_two_digits(needed - n)} more samples like these {n} would settle it, if the figure stays."


def worst(statuses: Iterable[Status]) -> Status:
    """FAIL before INCONCLUSIVE before PASS; PASS of none."""
    found = set(statuses)
    order: tuple[Status, ...] = ("FAIL", "INCONCLUSIVE")
    return next((status for status in order if status in found), "PASS")


def _two_digits(count: float) -> int:
    """Round up to two significant digits: it is an estimate, and should look like one."""
    count = max(1.0, count)
    step = int(10 ** max(0, math.floor(math.log10(count)) - 1))
    return math.ceil(round(count / step, 6)) * step
