"""The stages from FP32 to what is made as small bars side by side: what each cost in accuracy, what it saved."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from markupsafe import Markup

from edgeopt.bundle.document import Report, WaterfallRow
from edgeopt.core.measurement import Measurement
from edgeopt.report.axes import WIDTH, bounds, drawing, whisker
from edgeopt.report.format import figure, plain, unit_text, value_text
from edgeopt.report.plots import Plot
from edgeopt.report.svg import Scale, element, text
from edgeopt.report.waterfall import count_text, share_text

__all__ = ["waterfall_plot"]

_ROW, _TOP, _LEFT, _WORDS = 30, 30, 92, 52
_BARS = (("macs", "MACs"), ("latency_p50_ms", "latency p50"), ("size_mib", "size"))


def waterfall_plot(report: Report) -> Plot | None:
    """The picture; None where the recipe has no float step, or nothing has figures in two stages."""
    rows = report.waterfall.rows if report.waterfall is not None else ()
    panels: list[tuple[str, Callable[[float, float], list[Markup]]]] = []
    if sum(_value(row, "drop_pp") is not None for row in rows):
        panels.append(("drop, pp", lambda left, right: _drops(rows, left, right)))
    for name, title in _BARS:
        if sum(_value(row, name) is not None for row in rows) > 1 and _value(rows[0], name):
            panels.append((title, lambda left, right, name=name: _bars(rows, name, left, right)))  # type: ignore[misc]
    if not panels:
        return None
    height = _TOP + _ROW * len(rows) + 8
    wide = (WIDTH - _LEFT) / len(panels)
    parts = [
        text(_LEFT - 12, _middle(i) + 4, _cut(plain(row.name)), anchor="end", class_="name")
        for i, row in enumerate(rows)
    ]
    for index, (title, draw) in enumerate(panels):
        left = _LEFT + wide * index
        parts += [text(left, 14, title, class_="axis"), *draw(left, left + wide - 12)]
    return Plot(
        key="waterfall",
        title="Stage by stage",
        caption="Each stage from FP32, at the top, to what is made; as a share of FP32's. Bars at the drop: 95 % intervals.",
        svg=drawing(height, f"Stage by stage: {'; '.join(_in_words(row) for row in rows)}", parts),
    )


def _drops(rows: Sequence[WaterfallRow], left: float, right: float) -> list[Markup]:
    """A dot and its interval per stage, beside the line of no drop."""
    found = [(i, row, drop) for i, row in enumerate(rows) if (drop := row.figure("drop_pp")) and drop.value is not None]
    zero = Measurement(name="drop_pp", value=0.0, unit="pp")
    x = Scale(*bounds([zero, *(drop for _, _, drop in found)], floor=None, ceiling=None), left + 4, right - _WORDS)
    parts = [element("line", x1=x(0), x2=x(0), y1=_TOP - 6, y2=_TOP + _ROW * len(rows), class_="zero")]
    accuracy = rows[0].figure("accuracy_top1_pct")
    if accuracy is not None and accuracy.value is not None:
        parts.append(text(x(0) + 6, _middle(0) + 4, figure(accuracy, interval=False), class_="tick"))
    for i, row, drop in found:
        dot = element("circle", cx=x(drop.value or 0.0), cy=_middle(i), r=5, class_="dot")
        words = element("title", f"{plain(row.name)}: drop {figure(drop)}")
        parts.append(element("g", words, *whisker(x, drop, _middle(i), upright=False), dot, class_="hue0 small"))
        parts.append(text(right, _middle(i) + 4, value_text(drop), anchor="end", class_="tick"))
    return parts


def _bars(rows: Sequence[WaterfallRow], name: str, left: float, right: float) -> list[Markup]:
    """A bar per stage; the dotted line is where FP32 ends."""
    first = rows[0].figure(name)
    highest = max(value for row in rows if (value := _value(row, name)) is not None)
    x = Scale(0.0, highest, left, right - _WORDS)
    level = x(first.value or 0.0) if first is not None else left
    parts = [element("line", x1=level, x2=level, y1=_TOP - 6, y2=_TOP + _ROW * len(rows), class_="guide")]
    for i, row in enumerate(rows):
        found = row.figure(name)
        if found is None or found.value is None:
            parts.append(text(left, _middle(i) + 4, "–", class_="tick"))
            continue
        whole = count_text(found, None) if name == "macs" else f"{value_text(found)} {unit_text(found)}"
        kind = "bar-small" if row is rows[-1] else "bar-float"
        bar = element(
            "rect", x=left, y=_middle(i) - 7, width=max(x(found.value) - left, 1), height=14, rx=3, class_=kind
        )
        parts.append(element("g", element("title", f"{plain(row.name)}: {whole}"), bar))
        parts.append(text(x(found.value) + 5, _middle(i) + 4, share_text(found, first) if i else whole, class_="tick"))
    return parts


def _in_words(row: WaterfallRow) -> str:
    drop = row.figure("drop_pp")
    parts = [f"drop {value_text(drop)} pp"] if drop is not None and drop.value is not None else []
    for name, title in _BARS:
        found = row.figure(name)
        if found is not None and found.value is not None:
            whole = count_text(found, None) if name == "macs" else f"{value_text(found)} {unit_text(found)}"
            parts.append(f"{title} {whole}")
    return f"{plain(row.name)} {', '.join(parts)}"


def _value(row: WaterfallRow, name: str) -> float | None:
    found = row.figure(name)
    return None if found is None else found.value


def _middle(index: int) -> float:
    return _TOP + _ROW * (index + 0.5)


def _cut(name: str) -> str:
    return name if len(name) <= 12 else f"{name[:11]}…"
