"""An analysis as pictures: what each layer costs, memory over the schedule, sensitivity of each group."""

from __future__ import annotations

import math

from markupsafe import Markup

from edgeopt.bundle.analysis import Analysis, LayerCost, PrunableGroup
from edgeopt.report.analysis import count_text, group_table, layer_table
from edgeopt.report.axes import WIDTH, drawing, grid_x, grid_y, rotated
from edgeopt.report.format import bytes_text, plain
from edgeopt.report.plots import Plot
from edgeopt.report.svg import Scale, element, text

__all__ = ["analysis_plots"]

_MOST_ROWS = 40
_ROW = 24
_HUES = 6
_MIB = 1024 * 1024


def analysis_plots(found: Analysis) -> tuple[Plot, ...]:
    """Cost per layer, activation memory over the schedule, sensitivity of each group."""
    return (_costs(found), _memory(found), _sensitivity(found))


def _costs(found: Analysis) -> Plot:
    title = "Cost per layer"
    heads, rows = layer_table(found)
    layers = [layer for layer in found.layers if layer.macs or layer.parameters]
    if not layers:
        return Plot(key="costs", title=title, caption="", missing="no layer multiplies or has weights")
    macs, parameters = max(1, found.totals.macs), max(1, found.totals.parameters)

    def share(layer: LayerCost) -> float:
        return max((layer.macs or 0) / macs, layer.parameters / parameters)

    chosen = {layer.name for layer in sorted(layers, key=share, reverse=True)[:_MOST_ROWS]}
    shown = [layer for layer in layers if layer.name in chosen]
    left, right, top = 190, WIDTH - 16, 8
    bottom = top + _ROW * len(shown)
    x = Scale(0.0, 102 * max(*map(share, shown), 0.01), left, right)
    parts = [
        *grid_x(x, top, bottom, about=5),
        text((left + right) / 2, bottom + 42, "share of the total, %", anchor="middle", class_="axis"),
    ]
    for index, layer in enumerate(shown):
        y = top + _ROW * index + 3
        own = (
            ("hue0 small", "MACs", layer.macs or 0, macs),
            ("hue1 small", "parameters", layer.parameters, parameters),
        )
        words = ", ".join(f"{count_text(count)} {name} ({count / total:.1%})" for _, name, count, total in own)
        bars = [
            element("rect", x=left, y=y + 9 * row, width=max(x(100 * count / total) - left, 0), height=8, class_="fill")
            for row, (_, _, count, total) in enumerate(own)
        ]
        coloured = [element("g", bar, class_=style) for bar, (style, _, _, _) in zip(bars, own, strict=True)]
        parts.append(element("g", element("title", f"{plain(layer.name)}: {words}"), *coloured))
        parts.append(text(left - 10, y + 12, _shorten(plain(layer.name), 24), anchor="end", class_="name"))
    caption = "Share of the model's multiply-accumulates and of its parameters, in the graph's order."
    if len(shown) < len(layers):
        caption += f" The {len(shown)} largest of {len(layers)} layers; all are in the table."
    largest = max(shown, key=share)
    return Plot(
        key="costs",
        title=title,
        caption=caption,
        svg=drawing(bottom + 52, f"{title}; the largest is {plain(largest.name)}", parts),
        legend=(("hue0 small", "MACs"), ("hue1 small", "parameters")),
        heads=heads,
        rows=tuple(rows),
    )


def _memory(found: Analysis) -> Plot:
    title = "Activation memory over the schedule"
    live = [(layer, layer.live_bytes) for layer in found.layers if layer.live_bytes is not None]
    if found.memory is None or not live:
        return Plot(key="memory", title=title, caption="", missing="the schedule was not followed")
    height, left, top, right, bottom = 300, 62, 18, WIDTH - 14, 300 - 48
    unit, size = ("MiB", _MIB) if found.memory.peak_bytes >= _MIB else ("KiB", 1024)
    x = Scale(0, max(1, len(live)), left, right)
    y = Scale(0.0, max(found.memory.peak_bytes / size, 1e-9) * 1.12, bottom, top)
    outline = [f"{x(0):.1f},{bottom}"]
    marks: list[Markup] = []
    for index, (layer, held) in enumerate(live):
        level = y(held / size)
        outline += [f"{x(index):.1f},{level:.1f}", f"{x(index + 1):.1f},{level:.1f}"]
        box = element(
            "rect", x=x(index), y=top, width=x(index + 1) - x(index), height=bottom - top, class_="hit", fill="none"
        )
        said = element("title", f"{plain(layer.name)}: {bytes_text(held)} live")
        marks.append(element("g", said, box, pointer_events="all"))
    outline.append(f"{x(len(live)):.1f},{bottom}")
    parts = [
        *grid_y(y, left, right, about=5),
        text((left + right) / 2, height - 8, "layer, in the graph's order", anchor="middle", class_="axis"),
        rotated(15, (top + bottom) / 2, f"live, {unit}"),
        element("g", element("polygon", points=" ".join(outline), class_="fill", opacity=0.75), class_="hue0 small"),
    ]
    at = next((index for index, (layer, _) in enumerate(live) if layer.name == found.memory.peak_layer), None)
    if at is not None:
        place, level = x(at + 0.5), y(found.memory.peak_bytes / size)
        right_half = place > (left + right) / 2
        parts.append(element("circle", cx=place, cy=level, r=4, class_="peak"))
        words = f"{_shorten(plain(live[at][0].name), 30)}: {bytes_text(found.memory.peak_bytes)}"
        parts.append(text(place + (-9 if right_half else 9), level - 6, words,
                          anchor="end" if right_half else "start", class_="name"))  # fmt: skip
    per = "batch 1" if found.batch == 1 else f"a batch of {found.batch}"
    caption = (
        f"What is live while each layer runs, {per}; a tensor lives from the layer that makes it to its last reader. "
        "Weights, fusion and what an op needs inside are not in it."
    )
    return Plot(
        key="memory",
        title=title,
        caption=caption,
        svg=drawing(height, f"{title}; {bytes_text(found.memory.peak_bytes)} at the peak", [*parts, *marks]),
        heads=("live at the peak", "size"),
        rows=tuple((plain(one.name), bytes_text(one.size_bytes)) for one in found.memory.live),
    )


def _sensitivity(found: Analysis) -> Plot:
    title = "Sensitivity of each group"
    if found.pruning is None:
        return Plot(key="sensitivity", title=title, caption="", missing="there is no PyTorch program")
    heads, rows = group_table(found.pruning)
    curves = [(group, points) for group in found.pruning.groups if (points := _points(group))]
    values = [value for _, points in curves for _, value in points if value > 0]
    if not values:
        why = found.pruning.reason or "removing units changes no output"
        return Plot(key="sensitivity", title=title, caption="", missing=plain(why), heads=heads, rows=tuple(rows))
    height, left, top, right, bottom = 340, 72, 18, WIDTH - 14, 340 - 48
    low, high = min(values), max(values)
    low, high = (low / 1.5, high * 1.5) if high > low else (low / 10, high * 10)
    ratios = found.pruning.ratios
    x = Scale(min(ratios) - 0.05, max(ratios) + 0.05, left, right)
    y = Scale(math.log10(low), math.log10(high), bottom, top)
    named = sorted(curves, key=lambda curve: -max(value for _, value in curve[1]))[:_HUES]
    styles = {group.name: f"hue{index} small" for index, (group, _) in enumerate(named)}
    parts = [
        *_upright(low, high, y, left, right),
        *(text(x(ratio), bottom + 18, f"{ratio:.0%}", anchor="middle", class_="tick") for ratio in ratios),
        text((left + right) / 2, height - 8, "share of the group's units removed", anchor="middle", class_="axis"),
        rotated(15, (top + bottom) / 2, "divergence, logarithmic"),
    ]
    for group, points in sorted(curves, key=lambda curve: curve[0].name in styles):
        places = [(x(ratio), y(math.log10(max(value, low)))) for ratio, value in points]
        line = element("polyline", points=" ".join(f"{px:.1f},{py:.1f}" for px, py in places), class_="curve")
        dots = [element("circle", cx=px, cy=py, r=3, class_="dot") for px, py in places]
        words = "; ".join(f"{value:.3g} at {ratio:.0%}" for ratio, value in points)
        style = styles.get(group.name, "key-float")
        parts.append(element("g", element("title", f"{plain(group.name)}: {words}"), line, *dots, class_=style))
    rest = len(curves) - len(named)
    legend = [(styles[group.name], plain(group.name)) for group, _ in named]
    legend += [("key-float", f"{rest} less sensitive")] if rest else []
    return Plot(
        key="sensitivity",
        title=title,
        caption=f"Divergence from the model as it is, with part of one group removed; on {plain(found.pruning.split or '')}.",
        svg=drawing(height, f"{title}; the most sensitive is {plain(named[0][0].name)}", parts),
        legend=tuple(legend),
        heads=heads,
        rows=tuple(rows),
    )


def _points(group: PrunableGroup) -> list[tuple[float, float]]:
    found = [(m.conditions.get("ratio"), m.value) for m in group.figures if m.name == "divergence"]
    return [(float(ratio), value) for ratio, value in found if ratio is not None and value is not None]


def _upright(low: float, high: float, y: Scale, left: float, right: float) -> list[Markup]:
    """Level lines at powers of ten; at round values where there are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [10.0**power for power in powers if low <= 10.0**power <= high]
    values = values[:: 1 + len(values) // 8]
    if len(values) < 3:
        values = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
        values = [value for value in values if low <= value <= high]
    places = [(value, y(math.log10(value))) for value in values]
    lines = [element("line", x1=left, x2=right, y1=place, y2=place, class_="grid") for _, place in places]
    return [*lines, *(text(left - 8, p + 4, f"{v:g}", anchor="end", class_="tick") for v, p in places)]


def _shorten(name: str, most: int) -> str:
    """The end of a long name tells layers apart, so that is what stays."""
    return name if len(name) <= most else f"…{name[-most + 1 :]}"
