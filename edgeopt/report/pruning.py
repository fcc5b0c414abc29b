"""Pruning: what a step took away, and what a search for channel counts measured, as tables and small curves."""

from __future__ import annotations

from markupsafe import Markup

from edgeopt.bundle.document import CurveRow, PrunedSection, PruningSection, Report, StairPoint
from edgeopt.core.measurement import Measurement
from edgeopt.report.analysis import Table, count_text, stay_text
from edgeopt.report.axes import WIDTH, bounds, drawing, whisker
from edgeopt.report.format import figure, plain, value_text
from edgeopt.report.plots import Plot
from edgeopt.report.svg import Scale, element, text, ticks

__all__ = ["curve_plots", "curve_table", "pinned_table", "pruned_table", "pruned_words", "search_words"]

_MOST = 24  # curves
_COLUMNS = 3
_LAYERS = 4  # named per group
_LEFT, _NAME, _PANEL, _BELOW, _GAP = 44, 20, 66, 26, 18
_WHOLE = Measurement(name="latency_ratio", value=1.0, unit="1")
_TITLE = "Channels against latency"


def pruned_words(section: PrunedSection) -> str:
    """One sentence on a prune step: what is left, and how many groups lose units."""
    share = f" ({section.macs_kept / section.macs:.2f}×)" if section.macs else ""
    narrower = sum(row.kept < row.units for row in section.groups)
    return (
        f"{plain(section.step)}: {count_text(section.macs_kept)} of {count_text(section.macs)} multiply-accumulates are "
        f"left{share}; {narrower} of {len(section.groups)} groups lose units. {stay_text(len(section.pinned))}"
    )


def pruned_table(section: PrunedSection) -> Table:
    """Titles and cells: one row per group, in the graph's order."""
    rows: list[tuple[str, ...]] = [
        (plain(row.name), _layers(row.layers), _change(row.units, row.kept), _change(row.width, row.width_kept))
        for row in section.groups
    ]
    return ("group", "layers", "units", "width"), rows


def pinned_table(section: PrunedSection) -> Table:
    """What stays, and why."""
    return ("stays as it is", "why"), [(plain(one.name), plain(one.reason)) for one in section.pinned]


def search_words(section: PruningSection) -> str:
    """One sentence on a search: what was asked for, what came out of it."""
    narrower = sum(row.chosen is not None and row.chosen < row.units for row in section.curves)
    return (
        f"Widths for {section.wanted:g}× of the latency, {plain(section.runtime)} ({plain(section.precision)}): measured "
        f"{figure(section.measured)} as a whole, predicted {section.predicted:.3f}×; "
        f"{narrower} of {len(section.curves)} groups lose units."
    )


def curve_table(section: PruningSection) -> Table:
    """Titles and cells: one row per count that was timed, a star at the one that was taken."""
    rows: list[tuple[str, ...]] = []
    for row in section.curves:
        who = (plain(row.name), str(row.units), str(row.width))
        if row.chosen == row.units:
            rows.append((*who, f"★ {row.units}", "–", "–"))
        rows += [
            (
                *who,
                ("★ " if row.chosen == point.kept else "") + _kept(point),
                figure(point.latency),
                "–" if point.divergence.value is None else f"{point.divergence.value:.3g}",
            )
            for point in row.points
        ]
    return ("group", "units", "width", "units that stay", "latency ratio", "divergence"), rows


def curve_plots(report: Report) -> tuple[Plot, ...]:
    """One plot per search of the report."""
    return tuple(_curves(section, number) for number, section in enumerate(report.pruning))


def _curves(section: PruningSection, number: int) -> Plot:
    heads, rows = curve_table(section)
    key = f"pruning-{number}" if number else "pruning"
    timed = [row for row in section.curves if any(point.latency.value is not None for point in row.points)]
    if not timed:
        return Plot(key=key, title=_TITLE, caption="", missing="no narrower model was timed", heads=heads)
    shown = _most_gained(timed)
    found = [point.latency for row in shown for point in row.points if point.latency.value is not None]
    low, high = bounds([_WHOLE, *found], floor=0.0, ceiling=None)
    wide, tall = (WIDTH - _LEFT) / _COLUMNS, _NAME + _PANEL + _BELOW
    parts: list[Markup] = []
    for place, row in enumerate(shown):
        left, top = _LEFT + wide * (place % _COLUMNS), _NAME + tall * (place // _COLUMNS)
        x = Scale(0.0, 1.0, left + 6, left + wide - _GAP)
        y = Scale(low, high, top + _PANEL, top)
        parts += _panel(row, x, y, scaled=place % _COLUMNS == 0)
    caption = (
        f"Across: units of one group that stay, of all; up: p50 over the whole model's on {plain(section.runtime)} "
        f"({plain(section.precision)}), bars: 95 % intervals. Hollow: no difference told; ring: what was taken."
    )
    if len(shown) < len(section.curves):
        caption += f" The {len(shown)} with the most to gain of {len(section.curves)}; all are in the table."
    return Plot(
        key=key,
        title=_TITLE,
        caption=caption,
        svg=drawing(tall * -(-len(shown) // _COLUMNS), f"{_TITLE}: {'; '.join(map(_in_words, shown))}", parts),
        heads=heads,
        rows=tuple(rows),
    )


def _panel(row: CurveRow, x: Scale, y: Scale, *, scaled: bool) -> list[Markup]:
    """One group's curve, from the whole model at the right; ``scaled``: with the values beside the upright axis."""
    values, decimals = ticks(y.low, y.high, 3)
    parts = [element("line", x1=x.start, x2=x.stop, y1=y(v), y2=y(v), class_="grid") for v in values]
    if scaled:
        parts += [text(x.start - 10, y(v) + 4, f"{v:.{decimals}f}", anchor="end", class_="tick") for v in values]
    parts += [
        element("line", x1=x.start, x2=x.stop, y1=y(1.0), y2=y(1.0), class_="guide"),
        text(x.start, y.stop - 6, _cut(plain(row.name)), class_="name"),
        text(x(0.0), y.start + 15, "0", anchor="middle", class_="tick"),
        text(x(1.0), y.start + 15, str(row.units), anchor="end", class_="tick"),
    ]
    timed = [(point, x(point.kept / row.units), y(point.latency.value or 0.0)) for point in row.points if _timed(point)]
    path = " ".join(f"{px:.1f},{py:.1f}" for px, py in [(x(1.0), y(1.0)), *((px, py) for _, px, py in timed)])
    parts.append(element("g", element("polyline", points=path, class_="curve"), class_="hue0"))
    if row.chosen == row.units:
        words = element("title", f"{plain(row.name)}: all {row.units} stay")
        ring = element("circle", cx=x(1.0), cy=y(1.0), r=8, class_="ring")
        parts.append(element("g", words, ring, class_="hue1"))
    for point, px, py in timed:
        words = element("title", f"{plain(row.name)}: {_kept(point)} of {row.units}, {figure(point.latency)}")
        style = "hue0 small" if _told(point) else "hue0 float"
        dot = element("circle", cx=px, cy=py, r=3.5, class_="dot")
        parts.append(element("g", words, *whisker(y, point.latency, px, upright=True), dot, class_=style))
        if point.kept == row.chosen:
            parts.append(element("g", element("circle", cx=px, cy=py, r=8, class_="ring"), class_="hue1"))
    return parts


def _most_gained(rows: list[CurveRow]) -> list[CurveRow]:
    """In the graph's order those whose fastest stair is the fastest."""
    ranked = sorted(rows, key=lambda row: min(point.latency.value or 1.0 for point in row.points))[:_MOST]
    return [row for row in rows if row in ranked]


def _in_words(row: CurveRow) -> str:
    timed = ", ".join(f"{value_text(point.latency)} at {point.kept}" for point in row.points if _timed(point))
    return f"{plain(row.name)} of {row.units} units {timed}"


def _layers(names: tuple[str, ...]) -> str:
    more = f", {len(names) - _LAYERS} more" if len(names) > _LAYERS else ""
    return plain(", ".join(names[:_LAYERS])) + more


def _change(before: int, after: int) -> str:
    return f"{before:,} → {after:,}" if after != before else f"{before:,}"


def _timed(point: StairPoint) -> bool:
    return point.latency.value is not None


def _told(point: StairPoint) -> bool:
    """Whether it is faster beyond doubt, as the search counts it."""
    interval = point.latency.interval
    return interval is None or interval.high < 1.0


def _kept(point: StairPoint) -> str:
    return str(point.kept) if point.kept else "0 (the branch goes)"


def _cut(name: str) -> str:
    """The end of a long name tells layers apart, so that is what stays."""
    return name if len(name) <= 22 else f"…{name[-21:]}"
