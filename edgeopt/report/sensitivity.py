"""Sensitivities and the front of a search for mixed precision: a table, and two plots."""

from __future__ import annotations

import math

from markupsafe import Markup

from edgeopt.bundle.document import FrontRow, GroupRow, MixedSection, Report
from edgeopt.core.measurement import Measurement
from edgeopt.report.format import figure, plain
from edgeopt.report.plots import Plot
from edgeopt.report.svg import Scale, element, join, text, ticks

__all__ = ["front_plot", "front_table", "mixed_plots", "page", "sensitivity_plot", "table"]

_WIDTH, _LEFT, _ROW = 560, 190, 22
_MOST = 24
_STYLE = (
    "text{font:12px sans-serif;fill:#333}.grid{stroke:#ddd}.bar{fill:#4477aa}.float{fill:#cc6677}"
    ".point{fill:#4477aa}.chosen{fill:none;stroke:#cc6677;stroke-width:2}.limit{fill:#999}"
)


def table(section: MixedSection) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Titles and cells: one row per group, one column per precision and figure, one per runtime that was timed."""
    precisions = _precisions(section)
    with_rest = any(m.conditions.get("rest") == "int8" for row in section.groups for m in row.figures)
    runtimes = list(dict.fromkeys(str(m.conditions.get("runtime")) for row in section.groups for m in row.latency))
    chosen = any(row.chosen for row in section.groups)
    heads = ["group", "op", "MACs", "weights"]
    for precision in precisions:
        heads += [f"{precision} SQNR", f"{precision} {_metric_words(section)}"]
        heads += [f"all but it, {precision}"] if with_rest else []
    heads += [f"float, {runtime}" for runtime in runtimes]
    heads += ["chosen"] if chosen else []
    rows = []
    for row in section.groups:
        cells = [plain(row.name), "+".join(row.ops), f"{row.macs_share:.1%}", f"{row.weight_kib:.1f} KiB"]
        for precision in precisions:
            cells += [_cell(row.figure("sqnr_db", precision)), _small(row.figure("divergence", precision))]
            cells += [_small(row.figure("divergence", precision, "int8"))] if with_rest else []
        cells += [_delta(row, runtime) for runtime in runtimes]
        cells += [row.chosen or ""] if chosen else []
        rows.append(tuple(cells))
    return tuple(heads), rows


def front_table(section: MixedSection) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Titles and cells: one row per assignment, the fastest first."""
    heads = (
        "assignment",
        "in float",
        "predicted divergence",
        "measured",
        "drop",
        "agreement",
        "latency ratio",
        "holds",
    )
    rows: list[tuple[str, ...]] = []
    for row in section.front:
        names = ", ".join(row.groups_float[:4]) + (
            f", {len(row.groups_float) - 4} more" if len(row.groups_float) > 4 else ""
        )
        rows.append(
            (
                ("★ " if row.chosen else "") + row.label,
                plain(names),
                f"{row.predicted_sensitivity:.3g}",
                _small(row.figure("divergence")),
                _cell(row.figure("drop_pp")),
                _cell(row.figure("agreement_pct")),
                _cell(row.figure("latency_ratio")),
                "yes" if row.holds else "no",
            )
        )
    return heads, rows


def mixed_plots(report: Report) -> tuple[Plot, ...]:
    """Both plots of every search in a report."""
    return tuple(plot(section) for section in report.mixed for plot in (sensitivity_plot, front_plot))


def sensitivity_plot(section: MixedSection) -> Plot:
    """A bar per group, logarithmic: divergence with only this group quantized."""
    title = "Sensitivity per group"
    caption = f"Divergence from FP32 with only this group quantized, {section.split}; logarithmic. Longer is worse."
    precision = _precisions(section)[-1] if _precisions(section) else "int8"
    found = [(row, m.value) for row in section.groups if (m := row.figure("divergence", precision)) and m.value]
    found = sorted(found, key=lambda pair: -pair[1])[:_MOST]
    heads, rows = table(section)
    if not found:
        missing = "no group changes the outputs"
        return Plot(key="sensitivity", title=title, caption="", missing=missing, heads=heads, rows=tuple(rows))
    low, high = (f(math.log10(value) for _, value in found) for f in (min, max))
    scale = Scale(
        math.floor(low - 0.2),
        math.ceil(high + 1e-9) if math.ceil(high) > math.floor(low - 0.2) else high + 1,
        _LEFT,
        _WIDTH - 16,
    )
    bottom = 14 + _ROW * len(found)
    parts: list[Markup] = []
    for value in ticks(scale.low, scale.high, 4)[0]:
        x = scale(value)
        parts += [
            element("line", x1=x, x2=x, y1=8, y2=bottom, class_="grid"),
            text(x, bottom + 16, f"{10**value:.0e}", anchor="middle", class_="tick"),
        ]
    for index, (row, value) in enumerate(found):
        y = 12 + _ROW * index
        parts += [
            text(_LEFT - 8, y + 12, _short(row.name), anchor="end", class_="label"),
            element(
                "rect",
                element("title", f"{row.name}: {value:.3g}"),
                x=_LEFT,
                y=y,
                width=max(1.0, scale(math.log10(value)) - _LEFT),
                height=_ROW - 7,
                class_="bar float" if row.chosen == "float" else "bar",
            ),
        ]
    svg = _svg(join(parts), bottom + 26, title)
    return Plot(key="sensitivity", title=title, caption=caption, svg=svg, heads=heads, rows=tuple(rows))


def front_plot(section: MixedSection) -> Plot:
    """Measured divergence against cost, a point per assignment."""
    title = "Front of mixed precision"
    heads, rows = front_table(section)
    points = [
        (row, _cost(row), m.value) for row in section.front if (m := row.figure("divergence")) and m.value is not None
    ]
    if len(points) < 2:
        missing = "there is only one assignment"
        return Plot(key="front", title=title, caption="", missing=missing, heads=heads, rows=tuple(rows))
    timed = any(row.figure("latency_ratio") for row, _, _ in points)
    unit = "p50 over FP32's; all float is 1" if timed else "share of MACs in float"
    caption = f"Down and to the left is better. Across: {unit}. Up: divergence on the tuning split. Ring: the outcome."
    xs, ys = [x for _, x, _ in points], [y for _, _, y in points]
    across = Scale(min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1, 70, _WIDTH - 24)
    up = Scale(0.0, max(ys) or 1.0, 230, 16)
    parts: list[Markup] = []
    values, decimals = ticks(across.low, across.high, 5)
    parts += [text(across(v), 250, f"{v:.{decimals}f}", anchor="middle", class_="tick") for v in values]
    for value in ticks(up.low, up.high, 4)[0]:
        parts += [
            element("line", x1=70, x2=_WIDTH - 24, y1=up(value), y2=up(value), class_="grid"),
            text(64, up(value) + 4, f"{value:.2g}", anchor="end", class_="tick"),
        ]
    for row, x, y in points:
        kind = "point" if row.holds else "point limit"
        parts.append(element("circle", element("title", row.label), cx=across(x), cy=up(y), r=4, class_=kind))
        if row.chosen:
            parts.append(element("circle", cx=across(x), cy=up(y), r=8, class_="chosen"))
    svg = _svg(join(parts), 262, title)
    return Plot(key="front", title=title, caption=caption, svg=svg, heads=heads, rows=tuple(rows))


def page(section: MixedSection, name: str, *, html: bool) -> str:
    """The plot as a file of its own: SVG, or an HTML page with the table."""
    plot = sensitivity_plot(section)
    style = element("style", Markup(_STYLE))  # noqa: S704 - a constant
    if not html:
        empty = _svg(text(20, 30, plot.missing), 60, plot.title)
        drawn = str(plot.svg if plot.svg is not None else empty)
        return drawn.replace(">", f">{style}", 1).replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1) + "\n"
    cells = join(element("tr", *(element("td", cell) for cell in row)) for row in plot.rows)
    heads = element("tr", *(element("th", head) for head in plot.heads))
    body = join(
        [
            element("h1", f"{plain(name)}: {plot.title}"),
            element("p", plot.caption or plot.missing),
            plot.svg or Markup(),
            element("table", heads, cells),
            element("p", f"Time: {section.timed}."),
        ]
    )
    head = join([element("meta", charset="utf-8"), element("title", plain(name)), style])
    return f"<!doctype html>\n{element('html', element('head', head), element('body', body), lang='en')}\n"


def _svg(body: Markup, height: float, title: str) -> Markup:
    return element("svg", element("title", title), body, viewBox=f"0 0 {_WIDTH} {height:.0f}", role="img")


def _precisions(section: MixedSection) -> list[str]:
    return list(dict.fromkeys(str(m.conditions["precision"]) for row in section.groups for m in row.figures))


def _metric_words(section: MixedSection) -> str:
    kl = any(m.unit == "nats" and m.name == "divergence" for row in section.groups for m in row.figures)
    return "KL" if kl else "error"


def _delta(row: GroupRow, runtime: str) -> str:
    found = next((m for m in row.latency if m.conditions.get("runtime") == runtime), None)
    if found is None:
        return ""
    counts = float(found.conditions.get("counts") or 0.0)
    if found.value is None:
        return f"≈ {counts:+.1%} (modelled)"
    return f"{found.value:+.1%}" if counts else f"0 ({found.value:+.1%}, no difference told)"


def _cost(row: FrontRow) -> float:
    ratio = row.figure("latency_ratio")
    if ratio is not None and ratio.value is not None:
        return ratio.value
    return 1.0 if row.label == "all float" and row.predicted_cost > 1.0 else row.predicted_cost


def _cell(measurement: Measurement | None) -> str:
    return "–" if measurement is None else figure(measurement)


def _small(measurement: Measurement | None) -> str:
    return "–" if measurement is None or measurement.value is None else f"{measurement.value:.3g}"


def _short(name: str) -> str:
    return name if len(name) <= 26 else "…" + name[-25:]
