"""The four plots that people look for, each with its data as a table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from edgeopt.bundle.document import Candidate, Report
from edgeopt.core.measurement import Measurement
from edgeopt.report.axes import WIDTH, bounds, drawing, grid_log, grid_x, grid_y, rotated, whisker
from edgeopt.report.format import figure, interval_text, plain, value_text
from edgeopt.report.summary import worst_first
from edgeopt.report.svg import Scale, element, place_labels, text

__all__ = ["Plot", "all_plots", "style_of"]

_HUES = 6
_MOST_ROWS = 24
_ROW = 22


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """One plot.

    Attributes:
        caption: How to read it.
        svg: The drawing; None where there is nothing to draw, then ``missing`` says why.
        legend: CSS class and name of each candidate drawn.
        heads: The data table's column titles.
        rows: Its cells.
    """

    key: str
    title: str
    caption: str
    svg: Markup | None = None
    missing: str = ""
    legend: tuple[tuple[str, str], ...] = ()
    heads: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def all_plots(report: Report) -> tuple[Plot, ...]:
    """Accuracy against latency, latency distribution, drop per class, SQNR per layer."""
    return (_trade_off(report), _distribution(report), _class_drop(report), _layer_sqnr(report))


def style_of(report: Report, candidate: Candidate) -> str:
    """CSS classes: the hue is the runtime's, solid or hollow is the precision's, what is only on the way is faint."""
    runtimes = list(dict.fromkeys(c.runtime for c in report.candidates))
    shape = "float" if candidate.role == "reference" or candidate.precision == "fp32" else "small"
    faint = " stage" if candidate.role == "stage" else ""
    return f"hue{runtimes.index(candidate.runtime) % _HUES} {shape}{faint}"


def _trade_off(report: Report) -> Plot:
    title = "Accuracy against latency"
    caption = "Up and to the left is better. Bars: 95 % intervals. Hollow: float; filled: quantized; ring: shipped."
    points = [
        (c, speed, right)
        for c in report.candidates
        if (speed := c.figure("latency_p50_ms")) and (right := c.figure("accuracy_top1_pct"))
        if speed.value is not None and right.value is not None
    ]
    if not points:
        return Plot(key="trade-off", title=title, caption="", missing="no candidate has both accuracy and latency")
    height, left, top, right_edge, bottom = 340, 62, 18, WIDTH - 14, 340 - 48
    xs = bounds([m for _, m, _ in points], floor=0.0, ceiling=None)
    ys = bounds([m for _, _, m in points], floor=0.0, ceiling=100.0)
    x, y = Scale(*xs, left, right_edge), Scale(*ys, bottom, top)
    parts = [
        *grid_x(x, top, bottom, about=6),
        *grid_y(y, left, right_edge, about=5),
        text((left + right_edge) / 2, height - 8, "latency p50, ms", anchor="middle", class_="axis"),
        rotated(15, (top + bottom) / 2, "accuracy, %"),
    ]
    marks, spots = [], []
    for candidate, speed, right in points:
        cx, cy = x(speed.value or 0.0), y(right.value or 0.0)
        words = f"{plain(candidate.id)}: {figure(right)}, {figure(speed)}"
        ring = [element("circle", cx=cx, cy=cy, r=11, class_="ring")] if candidate.shipped else []
        dot = element("circle", cx=cx, cy=cy, r=6, class_="dot")
        whiskers = [*whisker(x, speed, cy, upright=False), *whisker(y, right, cx, upright=True)]
        style = style_of(report, candidate)
        marks.append(element("g", element("title", words), *whiskers, *ring, dot, class_=style))
        spots.append((cx, cy, plain(candidate.id)))
    taken = [(cx - 8, cy - 8, cx + 8, cy + 8) for cx, cy, _ in spots]
    taken += [
        (cx - 2, y(m.interval.high), cx + 2, y(m.interval.low))
        for (cx, _, _), (_, _, m) in zip(spots, points, strict=True)
        if m.interval
    ]
    labels = [
        text(lx, ly, name, anchor=anchor, class_="name")
        for (lx, ly, anchor), (_, _, name) in zip(
            place_labels(spots, taken, left=left, right=right_edge), spots, strict=True
        )
    ]
    summary = "; ".join(f"{plain(c.id)} {value_text(r)} % at {value_text(s)} ms" for c, s, r in points)
    return Plot(
        key="trade-off",
        title=title,
        caption=caption,
        svg=drawing(height, f"{title}: {summary}", [*parts, *marks, *labels]),
        heads=("candidate", "latency p50, ms", "interval", "accuracy, %", "interval"),
        rows=tuple(
            (plain(c.id), value_text(s), interval_text(s), value_text(r), interval_text(r)) for c, s, r in points
        ),
    )


def _distribution(report: Report) -> Plot:
    title = "Latency distribution"
    drawn = [c for c in report.candidates if len(c.latency_ms) > 1]
    if not drawn:
        return Plot(key="distribution", title=title, caption="", missing="no candidate has latency samples")
    # A logarithmic axis: on a linear one a few stragglers would squeeze all medians into one line.
    low = max(min(min(c.latency_ms) for c in drawn), 1e-9) / 1.1
    high = max(max(c.latency_ms) for c in drawn) * 1.1
    height, left, top, right, bottom = 340, 62, 18, WIDTH - 14, 340 - 48
    logarithmic, y = Scale(math.log10(low), math.log10(high), left, right), Scale(0, 100, bottom, top)

    def x(milliseconds: float) -> float:
        return logarithmic(math.log10(max(milliseconds, low)))

    parts = [
        *grid_log(low, high, logarithmic, top, bottom),
        *grid_y(y, left, right, about=4),
        element("line", x1=left, x2=right, y1=y(50), y2=y(50), class_="guide"),
        element("line", x1=left, x2=right, y1=y(99), y2=y(99), class_="guide"),
        text(right, y(50) - 5, "p50", anchor="end", class_="tick"),
        text(right, y(99) + 14, "p99", anchor="end", class_="tick"),
        text((left + right) / 2, height - 8, "latency, ms (logarithmic)", anchor="middle", class_="axis"),
        rotated(15, (top + bottom) / 2, "inferences at most this slow, %"),
    ]
    for candidate in drawn:
        values = sorted(candidate.latency_ms)
        steps = [index / 200 for index in range(201)]
        path = " ".join(f"{x(_quantile(values, q)):.1f},{y(100 * q):.1f}" for q in steps)
        words = f"{plain(candidate.id)}: {len(values)} inferences"
        line = element("polyline", points=path, class_="curve")
        parts.append(element("g", element("title", words), line, class_=style_of(report, candidate)))
    caption = "The further left, the faster; the steeper, the steadier. Dashed: float."
    rows = []
    for candidate in drawn:
        values = sorted(candidate.latency_ms)
        at = [_ms(_quantile(values, q)) for q in (0.0, 0.5, 0.9, 0.95, 0.99, 1.0)]
        rows.append((plain(candidate.id), f"{len(values):,}", *at))
    return Plot(
        key="distribution",
        title=title,
        caption=caption,
        svg=drawing(height, f"{title} of {', '.join(plain(c.id) for c in drawn)}, as cumulative shares", parts),
        legend=tuple((style_of(report, c), plain(c.id)) for c in drawn),
        heads=("candidate", "n", "fastest, ms", "p50", "p90", "p95", "p99", "slowest, ms"),
        rows=tuple(rows),
    )


def _class_drop(report: Report) -> Plot:
    shipped = report.shipped
    title = "Accuracy drop per class"
    rows = sorted(shipped.classes, key=lambda row: -(row.drop.value if row.drop.value is not None else float("-inf")))
    shown = [row for row in rows if row.drop.value is not None][:_MOST_ROWS]
    if not shown:
        why = "what is shipped is FP32 itself" if shipped.role == "reference" else "no accuracy per class was recorded"
        return Plot(key="classes", title=title, caption="", missing=why)
    left, right, top = 120, WIDTH - 14, 8
    bottom = top + _ROW * len(shown)
    low, high = bounds([row.drop for row in shown] + [_zero(shown[0].drop)], floor=None, ceiling=None)
    x = Scale(low, high, left, right)
    parts = [
        *grid_x(x, top, bottom, about=6),
        element("line", x1=x(0), x2=x(0), y1=top, y2=bottom, class_="zero"),
        text(
            (left + right) / 2,
            bottom + 42,
            "drop, percentage points (right of 0: worse)",
            anchor="middle",
            class_="axis",
        ),
    ]
    for index, row in enumerate(shown):
        cy = top + _ROW * (index + 0.5)
        value = row.drop.value or 0.0
        bar = whisker(x, row.drop, cy, upright=False)
        words = f"{plain(row.label)}: {figure(row.drop)}, n {row.samples}"
        dot = element("circle", cx=x(value), cy=cy, r=5, class_="dot")
        parts.append(element("g", element("title", words), *bar, dot, class_=style_of(report, shipped)))
        parts.append(text(left - 10, cy + 4, _cut(plain(row.label), 15), anchor="end", class_="name"))
    caption = f"{plain(shipped.id)} against FP32 on the same samples, worst first. Bars: 95 % intervals."
    if len(shown) < len(rows):
        caption += f" The worst {len(shown)} of {len(rows)}; all are in the table."
    worst = f"{plain(shown[0].label)} {figure(shown[0].drop)}"
    return Plot(
        key="classes",
        title=title,
        caption=caption,
        svg=drawing(bottom + 52, f"{title}, worst first; the worst is {worst}", parts),
        heads=("class", "samples", "accuracy", "drop"),
        rows=tuple((plain(r.label), f"{r.samples:,}", figure(r.accuracy), figure(r.drop)) for r in rows),
    )


def _layer_sqnr(report: Report) -> Plot:
    title = "SQNR per layer"
    rows = worst_first(report)
    shown = [row for row in rows if row.sqnr.value is not None][:_MOST_ROWS]
    if not shown:
        why = rows[0].sqnr.reason if rows and rows[0].sqnr.reason else "no layer was compared with FP32 in this run"
        return Plot(key="layers", title=title, caption="", missing=plain(why))
    left, right, top = 190, WIDTH - 44, 8
    bottom = top + _ROW * len(shown)
    values = [row.sqnr.value or 0.0 for row in shown]
    x = Scale(min(0.0, *values), max(*values, 1.0) * 1.02, left, right)
    parts = [
        *grid_x(x, top, bottom, about=5),
        text((left + right) / 2, bottom + 42, "signal to quantization noise, dB", anchor="middle", class_="axis"),
    ]
    for index, (row, value) in enumerate(zip(shown, values, strict=True)):
        cy = top + _ROW * (index + 0.5)
        start, stop = sorted((x(0), x(value)))
        words = f"{plain(row.name)} ({plain(row.op)}, {plain(row.precision)}): {figure(row.sqnr)}"
        kind = "bar-float" if row.precision == "float" else "bar-small"
        bar = element("rect", x=start, y=cy - 7, width=max(stop - start, 1), height=14, rx=3, class_=kind)
        parts.append(element("g", element("title", words), bar))
        parts.append(text(left - 10, cy + 4, _shorten(plain(row.name), 24), anchor="end", class_="name"))
        parts.append(text(stop + 6, cy + 4, value_text(row.sqnr), class_="tick"))
    caption = "Each layer's output against FP32, worst first: short bars are where accuracy is lost."
    if len(shown) < len(rows):
        caption += f" {len(shown)} of {len(rows)} layers are drawn; all are in the table."
    precisions = list(dict.fromkeys("float" if row.precision == "float" else row.precision for row in shown))
    return Plot(
        key="layers",
        title=title,
        caption=caption,
        svg=drawing(bottom + 52, f"{title}, worst first; the lowest is {plain(shown[0].name)}", parts),
        legend=tuple(("key-float" if p == "float" else "key-small", plain(p)) for p in precisions),
        heads=("layer", "op", "precision", "SQNR", "why"),
        rows=tuple((plain(r.name), plain(r.op), plain(r.precision), figure(r.sqnr), plain(r.reason)) for r in rows),
    )


def _zero(like: Measurement) -> Measurement:
    return Measurement(name=like.name, value=0.0, unit=like.unit)


def _quantile(values: Sequence[float], q: float) -> float:
    """Linear between the two nearest of the sorted ``values``."""
    position = q * (len(values) - 1)
    index = min(int(position), len(values) - 2)
    return values[index] + (position - index) * (values[index + 1] - values[index])


def _ms(value: float) -> str:
    return value_text(Measurement(name="latency_ms", value=value, unit="ms"))


def _cut(name: str, most: int) -> str:
    """The start of a long name of a class."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _shorten(name: str, most: int) -> str:
    """The end of a long name tells layers apart, so that is what stays."""
    return name if len(name) <= most else f"…{name[-most + 1 :]}"
