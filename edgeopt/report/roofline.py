"""The roofline: each layer's achieved rate under what the machine can do, as rows, as a picture, as a document."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from markupsafe import Markup

from edgeopt.bundle.roofline import Roofline, RooflineRow
from edgeopt.report.axes import WIDTH, grid_log, rotated
from edgeopt.report.format import figure, label, plain
from edgeopt.report.svg import Scale, element, join, place_labels, text

__all__ = [
    "ROOFLINE_HEADS",
    "roofline_json",
    "roofline_lines",
    "roofline_narrow",
    "roofline_notes",
    "roofline_page",
    "roofline_rows",
    "roofline_svg",
]

ROOFLINE_HEADS = ("layer", "kernel", "in", "µs", "time, %", "GOPS", "ops/byte", "attainable", "reached, %")
_HEIGHT, _LEFT, _RIGHT, _TOP = 420, 72, WIDTH - 14, 18
_NAMED = 6
_LONGEST = 3
_NOISE_PCT = 110.0
_NONE = "–"
# Without variables, which viewers other than browsers do not know.
_STYLE = (
    "text{font:12.5px sans-serif;fill:#15181d}.tick,.axis{fill:#5b6470}.grid{stroke:#e3e6ea}.roof{fill:none;"
    "stroke-width:2}.int8{stroke:#1f6feb;fill:#1f6feb}.float{stroke:#d0620b;fill:#d0620b}path.roof{fill:none}"
    "circle{fill-opacity:.55}body{font:15px sans-serif;max-width:900px;margin:2em auto;padding:0 1em}"
    "td,th{padding:2px 12px 2px 0;text-align:right}td:first-child,th:first-child{text-align:left}"
)


def roofline_rows(found: Roofline) -> tuple[tuple[str, ...], ...]:
    """Cells under ``ROOFLINE_HEADS``: what takes longest first, the whole last."""
    total = found.whole.us or 1.0
    ordered = sorted(found.rows, key=lambda row: -row.us)
    return tuple(_cells(row, total) for row in (*ordered, found.whole))


def roofline_narrow(found: Roofline) -> tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Heads and cells that fit a terminal of 80 columns."""
    kept = [ROOFLINE_HEADS.index(head) for head in ("layer", "in", "µs", "time, %", "GOPS", "attainable", "reached, %")]
    rows = [tuple(row[index] for index in kept) for row in roofline_rows(found)]
    return tuple(ROOFLINE_HEADS[index] for index in kept), tuple((_shorten(row[0], 20), *row[1:]) for row in rows)


def roofline_lines(found: Roofline) -> tuple[str, ...]:
    """How far the whole is from what the machine can do, and the layers that take longest."""
    whole, total = found.whole, found.whole.us or 1.0
    reached = "" if whole.share_pct is None else f", {whole.share_pct:.0f} % of what its layers could reach here"
    longest = sorted(found.rows, key=lambda row: -row.us)[:_LONGEST]
    told = [
        f"{plain(row.name)} {100 * row.us / total:.0f} % of the time"
        + ("" if row.share_pct is None else f", at {row.share_pct:.0f} % of its roof")
        for row in longest
    ]
    return (f"Under the profiler {whole.gops:.3g} GOPS{reached}.", f"Longest: {'; '.join(told)}.")


def roofline_notes(found: Roofline) -> tuple[str, ...]:
    """The peaks, and under which conditions all this was measured."""
    peaks = (found.peaks.int8, found.peaks.float32, found.peaks.bandwidth)
    told = [f"{label(peak.name)}: {figure(peak)}" for peak in peaks if peak.value is not None]
    missing = [f"{label(peak.name)} not measured: {peak.reason}" for peak in peaks if peak.value is None]
    above = [row.name for row in found.rows if (row.share_pct or 0.0) > _NOISE_PCT]
    if above:
        missing.append(
            f"above what is attainable: {', '.join(above[:3])}: the peaks were disturbed, or data stay in caches"
        )
    return (
        plain("; ".join([*told, *missing]) + "."),
        plain(f"Measured on {found.device}; {', '.join(f'{k} {v}' for k, v in found.conditions.items())}."),
    )


def roofline_json(found: Roofline) -> str:
    """Every row, the peaks and the conditions."""
    return found.model_dump_json(indent=2) + "\n"


def roofline_page(found: Roofline, name: str, *, html: bool) -> str:
    """The picture alone as an SVG file, or an HTML page with the rows as a table."""
    style = element("style", Markup(_STYLE))  # noqa: S704 - a constant
    if not html:
        return f"{roofline_svg(found, style=style)}\n"
    heads = element("tr", *(element("th", head) for head in ROOFLINE_HEADS))
    rows = join(element("tr", *(element("td", cell) for cell in row)) for row in roofline_rows(found))
    notes = [element("p", note) for note in roofline_notes(found)]
    title = f"{plain(name)}: roofline"
    body = join([element("h1", title), *notes, roofline_svg(found), element("table", heads, rows)])
    head = join([element("meta", charset="utf-8"), element("title", title), style])
    return f"<!doctype html>\n{element('html', element('head', head), element('body', body), lang='en')}\n"


def roofline_svg(found: Roofline, *, style: Markup | None = None) -> Markup:
    """Operations a second over operations for each byte, both logarithmic; a dot's area is its share of the time."""
    shown = [row for row in found.rows if row.macs and row.intensity and row.gops > 0]
    roofs = [(kind, peak.value) for kind, peak in (("int8", found.peaks.int8), ("float", found.peaks.float32))]
    known = [(kind, peak) for kind, peak in roofs if peak is not None]
    words = "Roofline: achieved operations a second of each layer under the machine's peaks"
    if not shown or not known or found.peaks.bandwidth.value is None:
        missing = text(_LEFT, 40, "Not drawn: nothing that multiplies was timed, or a peak was not measured.")
        return _drawing(words, [missing], style)
    bandwidth = found.peaks.bandwidth.value
    ridge = [peak / bandwidth for _, peak in known]
    xs = _span([row.intensity or 1.0 for row in shown] + ridge)
    ys = _span([row.gops for row in shown] + [peak for _, peak in known])
    bottom = _HEIGHT - 48
    x = Scale(math.log10(xs[0]), math.log10(xs[1]), _LEFT, _RIGHT)
    y = Scale(math.log10(ys[0]), math.log10(ys[1]), bottom, _TOP)
    parts = [
        *grid_log(*xs, x, _TOP, bottom),
        *_grid_up(*ys, y),
        text((_LEFT + _RIGHT) / 2, _HEIGHT - 8, "operations for each byte", anchor="middle", class_="axis"),
        rotated(15, (_TOP + bottom) / 2, "10⁹ operations a second"),
    ]
    for kind, peak in known:
        # From where the slope enters the picture to the ridge, and level from there.
        start = max(xs[0], ys[0] / bandwidth)
        corners = [(start, bandwidth * start), (peak / bandwidth, peak), (xs[1], peak)]
        line = " L ".join(f"{x(math.log10(a)):.1f} {y(math.log10(b)):.1f}" for a, b in corners)
        parts.append(element("path", d=f"M {line}", class_=f"roof {kind}"))
        parts.append(
            text(_RIGHT - 4, y(math.log10(peak)) - 6, f"{kind}: {peak:,.0f} GOPS", anchor="end", class_="name")
        )
    spots = [(x(math.log10(row.intensity or 1.0)), y(math.log10(row.gops))) for row in shown]
    for row, (cx, cy) in zip(shown, spots, strict=True):
        radius = 3 + 14 * math.sqrt(row.us / (found.whole.us or row.us))
        parts.append(element("circle", element("title", _words(row)), cx=cx, cy=cy, r=radius, class_=_kind(row)))
    slowest = sorted(zip(shown, spots, strict=True), key=lambda pair: -pair[0].us)[:_NAMED]
    points = [(cx, cy, _shorten(plain(row.name))) for row, (cx, cy) in slowest]
    places = place_labels(points, [(cx - 6, cy - 6, cx + 6, cy + 6) for cx, cy in spots], left=_LEFT, right=_RIGHT)
    for (lx, ly, anchor), (_, _, name) in zip(places, points, strict=True):
        parts.append(text(lx, ly, name, anchor=anchor, class_="name"))
    return _drawing(words, parts, style)


def _drawing(words: str, parts: Sequence[Markup], style: Markup | None) -> Markup:
    inside = [element("title", words), *([style] if style is not None else []), *parts]
    return element(
        "svg",
        join(inside),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {_HEIGHT}",
        role="img",
        aria_label=words,
        class_="plot roofline",
    )


def _grid_up(low: float, high: float, y: Scale) -> Iterable[Markup]:
    """Level lines at the powers of ten, and the values beside them."""
    for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1):
        yield element("line", x1=_LEFT, x2=_RIGHT, y1=y(power), y2=y(power), class_="grid")
        yield text(_LEFT - 8, y(power) + 4, f"{10.0**power:g}", anchor="end", class_="tick")


def _span(values: Sequence[float]) -> tuple[float, float]:
    return min(values) / 1.6, max(values) * 1.6


def _kind(row: RooflineRow) -> str:
    return "int8" if row.runs_in == "int8" else "float"


def _shorten(name: str, most: int = 24) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _words(row: RooflineRow) -> str:
    reached = "" if row.share_pct is None else f", {row.share_pct:.0f} % of what is attainable"
    return plain(f"{row.name} ({row.op}, {row.runs_in}): {row.us:.1f} µs, {row.gops:.3g} GOPS{reached}")


def _cells(row: RooflineRow, total: float) -> tuple[str, ...]:
    works = bool(row.macs)
    return (
        plain(row.name),
        plain(row.op) or _NONE,
        plain(row.runs_in) or _NONE,
        f"{row.us:,.1f}",
        f"{100 * row.us / total:.1f}",
        f"{row.gops:,.3g}" if works else _NONE,
        f"{row.intensity:,.3g}" if works and row.intensity is not None else _NONE,
        f"{row.roof_gops:,.3g}" if works and row.roof_gops is not None else _NONE,
        f"{row.share_pct:.0f}" if row.share_pct is not None else _NONE,
    )
