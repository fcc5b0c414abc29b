"""Axes, grids and intervals that the report's plots share."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from edgeopt.core.measurement import Measurement
from edgeopt.report.svg import Scale, element, join, text, ticks

__all__ = ["WIDTH", "bounds", "drawing", "grid_log", "grid_x", "grid_y", "rotated", "whisker"]

WIDTH = 560


def drawing(height: float, label: str, parts: Sequence[Markup]) -> Markup:
    """The whole picture, ``WIDTH`` wide, with its words for those who cannot see it."""
    return element("svg", join(parts), viewBox=f"0 0 {WIDTH} {height:.0f}", role="img", aria_label=label, class_="plot")


def grid_x(x: Scale, top: float, bottom: float, about: int) -> list[Markup]:
    """Upright lines at round values, and the values below them."""
    values, decimals = ticks(x.low, x.high, about)
    lines = [element("line", x1=x(v), x2=x(v), y1=top, y2=bottom, class_="grid") for v in values]
    return [*lines, *(text(x(v), bottom + 18, _tick(v, decimals), anchor="middle", class_="tick") for v in values)]


def grid_log(low: float, high: float, x: Scale, top: float, bottom: float) -> list[Markup]:
    """Lines at 1, 2 and 5 times powers of ten, or at the powers alone; within less than that, at round values."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    within = [factor * 10.0**power for power in powers for factor in (1, 2, 5) if low <= factor * 10.0**power <= high]
    if len(within) < 3:
        within, decimals = ticks(low, high, 5)
        named = {value: _tick(value, decimals) for value in within}
    else:
        if len(within) > 9:
            within = [10.0**power for power in powers if low <= 10.0**power <= high]
        named = {value: f"{value:g}" for value in within}
    at = {value: x(math.log10(value)) for value in named if value > 0}
    lines = [element("line", x1=place, x2=place, y1=top, y2=bottom, class_="grid") for place in at.values()]
    return [*lines, *(text(p, bottom + 18, named[v], anchor="middle", class_="tick") for v, p in at.items())]


def grid_y(y: Scale, left: float, right: float, about: int) -> list[Markup]:
    """Level lines at round values, and the values beside them."""
    values, decimals = ticks(y.low, y.high, about)
    lines = [element("line", x1=left, x2=right, y1=y(v), y2=y(v), class_="grid") for v in values]
    return [*lines, *(text(left - 8, y(v) + 4, _tick(v, decimals), anchor="end", class_="tick") for v in values)]


def rotated(x: float, y: float, content: str) -> Markup:
    """A title along the upright axis."""
    return element(
        "text", content, x=x, y=y, text_anchor="middle", class_="axis", transform=f"rotate(-90 {x:.1f} {y:.1f})"
    )


def whisker(along: Scale, measurement: Measurement, across: float, *, upright: bool) -> list[Markup]:
    """The interval as a line, at ``across`` on the other axis; nothing where there is no interval."""
    if measurement.interval is None:
        return []
    start, stop = along(measurement.interval.low), along(measurement.interval.high)
    x1, x2, y1, y2 = (across, across, start, stop) if upright else (start, stop, across, across)
    return [element("line", x1=x1, x2=x2, y1=y1, y2=y2, class_="whisker")]


def bounds(measurements: Sequence[Measurement], floor: float | None, ceiling: float | None) -> tuple[float, float]:
    """The figures and their intervals with some air around them, no further than ``floor`` and ``ceiling``."""
    values = [m.value for m in measurements if m.value is not None]
    values += [end for m in measurements if m.interval for end in (m.interval.low, m.interval.high)]
    low, high = min(values), max(values)
    air = 0.12 * (high - low) or 0.1 * abs(high) or 1.0
    low, high = low - air, high + air
    if floor is not None:
        low = max(low, floor)
    if ceiling is not None:
        high = min(high, ceiling + 0.02 * (ceiling - low))
    return low, high if high > low else low + 1.0


def _tick(value: float, decimals: int) -> str:
    return f"{value:,.{decimals}f}".replace("-", "−")
