"""Drop against latency, one point per rung, joined in the order in which they were tried."""

from __future__ import annotations

from edgeopt.bundle.document import Report
from edgeopt.report.axes import WIDTH, bounds, drawing, grid_x, grid_y, rotated, whisker
from edgeopt.report.format import figure, plain, value_text
from edgeopt.report.plots import Plot
from edgeopt.report.svg import Scale, element, place_labels, text

__all__ = ["rung_plot"]

_HEIGHT = 260
_HUES = {"met": "hue2", "missed": "hue1"}


def rung_plot(report: Report) -> Plot | None:
    """The picture; None where the recipe has no ladder, or no rung has both figures."""
    rows = report.ladder.rungs if report.ladder is not None else ()
    points = [
        (row, ratio, drop)
        for row in rows
        if (ratio := row.figure("latency_ratio")) and (drop := row.figure("drop_pp"))
        if ratio.value is not None and drop.value is not None
    ]
    if not points:
        return None
    left, top, right, bottom = 62, 14, WIDTH - 14, _HEIGHT - 48
    x = Scale(*bounds([ratio for _, ratio, _ in points], floor=0.0, ceiling=None), left, right)
    y = Scale(*bounds([drop for _, _, drop in points], floor=None, ceiling=None), bottom, top)
    spots = [(x(ratio.value or 0.0), y(drop.value or 0.0), plain(row.name)) for row, ratio, drop in points]
    parts = [
        *grid_x(x, top, bottom, about=6),
        *grid_y(y, left, right, about=5),
        text((left + right) / 2, _HEIGHT - 8, "latency, of FP32's", anchor="middle", class_="axis"),
        rotated(15, (top + bottom) / 2, "drop, pp"),
        element("polyline", points=" ".join(f"{cx:.1f},{cy:.1f}" for cx, cy, _ in spots), class_="guide", fill="none"),
    ]
    for (cx, cy, name), (row, ratio, drop) in zip(spots, points, strict=True):
        words = f"{name}: drop {figure(drop)}, {figure(ratio)} of FP32's latency"
        bars = [*whisker(x, ratio, cy, upright=False), *whisker(y, drop, cx, upright=True)]
        dot = element("circle", cx=cx, cy=cy, r=6, class_="dot")
        parts.append(element("g", element("title", words), *bars, dot, class_=_HUES.get(row.status, "hue1")))
    taken = [(cx - 8, cy - 8, cx + 8, cy + 8) for cx, cy, _ in spots]
    places = place_labels(spots, taken, left=left, right=right)
    parts += [
        text(lx, ly, name, anchor=anchor, class_="name")
        for (lx, ly, anchor), (_, _, name) in zip(places, spots, strict=True)
    ]
    summary = "; ".join(f"{plain(r.name)} {value_text(d)} pp at {value_text(ratio)}" for r, ratio, d in points)
    return Plot(
        key="rungs",
        title="Drop against latency, rung by rung",
        caption="Down and to the left is better. Dotted: the order in which the rungs were tried. Bars: 95 % intervals.",
        svg=drawing(_HEIGHT, f"Drop against latency of each rung: {summary}", parts),
    )
