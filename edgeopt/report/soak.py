"""A soak as files of its own: a picture of the latency over time, a page around it, a document."""

from __future__ import annotations

from markupsafe import Markup
from pydantic import TypeAdapter

from edgeopt.core.measurement import Measurement
from edgeopt.measure.soak import Soak, SoakWindow
from edgeopt.report.axes import WIDTH, grid_x, grid_y, rotated
from edgeopt.report.format import figure, label, plain, value_text
from edgeopt.report.svg import Scale, element, join, text

__all__ = ["page", "soak_json", "soak_svg"]

_LEFT, _RIGHT, _PANEL, _GAP = 62, WIDTH - 14, 220, 64
# Without variables, which viewers other than browsers do not know.
_STYLE = (
    "text{font:12.5px sans-serif;fill:#15181d}.tick,.axis{fill:#5b6470}.grid{stroke:#e3e6ea}.curve{fill:none;"
    "stroke-width:2}.p50{stroke:#1f6feb}.p99{stroke:#d0620b}.other{stroke:#0f8b8d}.throttle{stroke:#b3261e;"
    "stroke-dasharray:4 3}body{font:15px sans-serif;max-width:760px;margin:2em auto;padding:0 1em}td,th{padding:2px 12px "
    "2px 0;text-align:left}"
)
_HEADS = ("from, s", "n", "p50, ms", "p99, ms", "MHz", "°C", "throttled", "memory, MiB")


def page(soak: Soak, name: str, *, html: bool) -> str:
    """The picture alone as an SVG file, or an HTML page with the windows as a table."""
    style = element("style", Markup(_STYLE))  # noqa: S704 - a constant
    if not html:
        return f"{soak_svg(soak, style=style)}\n"
    figures = join(element("tr", element("th", label(m.name)), element("td", figure(m))) for m in soak.measurements)
    heads = element("tr", *(element("th", head) for head in _HEADS))
    rows = join(element("tr", *(element("td", cell) for cell in _cells(window))) for window in soak.windows)
    title = f"{plain(name)}: soak of {_minutes(soak.asked_s)}"
    early = [element("p", f"Ended early: {plain(soak.interrupted)}.")] if soak.interrupted else []
    about = next((m for m in soak.measurements if m.device), None)
    where = [element("p", f"Measured on {plain(about.device or '')}.")] if about else []
    table = element("table", heads, rows)
    body = join([element("h1", title), *early, *where, element("table", figures), soak_svg(soak), table])
    head = join([element("meta", charset="utf-8"), element("title", title), style])
    return f"<!doctype html>\n{element('html', element('head', head), element('body', body), lang='en')}\n"


def soak_json(soak: Soak) -> str:
    """The windows and the figures."""
    return TypeAdapter(Soak).dump_json(soak, indent=2).decode() + "\n"


def soak_svg(soak: Soak, *, style: Markup | None = None) -> Markup:
    """Latency over time; below it frequency, temperature and memory, each where the device told it."""
    windows = soak.windows
    x = Scale(0.0, windows[-1].start_s + windows[-1].seconds, _LEFT, _RIGHT)
    latency = {"p50": _series(windows, "p50_ms"), "p99": _series(windows, "p99_ms")}
    panels = [("latency, ms", latency)]
    others = {"frequency, MHz": "frequency_mhz", "temperature, °C": "temperature_c", "memory, MiB": "rss_mib"}
    panels += [(title, {"other": found}) for title, key in others.items() if len(found := _series(windows, key)) > 1]
    began = next((m for m in soak.measurements if m.name == "time_to_throttle_s" and m.value is not None), None)
    parts: list[Markup] = [] if style is None else [style]
    for index, (title, curves) in enumerate(panels):
        parts += _panel(title, curves, x, 18 + index * (_PANEL + _GAP), began)
    height = len(panels) * (_PANEL + _GAP) + 18
    words = "Latency over time" + ("" if began is None else f"; it throttles from {value_text(began)} s on")
    return element(
        "svg",
        element("title", words),
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {height}",
        role="img",
        aria_label=words,
    )


def _panel(
    title: str, curves: dict[str, list[tuple[float, float]]], x: Scale, top: float, began: Measurement | None
) -> list[Markup]:
    values = [value for points in curves.values() for _, value in points]
    air = 0.08 * (max(values) - min(values)) or 0.1 * abs(max(values)) or 1.0
    bottom = top + _PANEL
    y = Scale(max(0.0, min(values) - air), max(values) + air, bottom, top)
    parts = [
        *grid_x(x, top, bottom, about=6),
        *grid_y(y, _LEFT, _RIGHT, about=5),
        text((_LEFT + _RIGHT) / 2, bottom + 36, "time, s", anchor="middle", class_="axis"),
        rotated(15, (top + bottom) / 2, title),
    ]
    for name, points in curves.items():
        path = " ".join(f"{x(seconds):.1f},{y(value):.1f}" for seconds, value in points)
        parts.append(element("polyline", element("title", name), points=path, class_=f"curve {name}"))
        if len(curves) > 1:
            parts.append(text(_RIGHT, y(points[-1][1]) - 5, name, anchor="end", class_="tick"))
    if began is not None:
        at = x(began.value or 0.0)
        parts.append(element("line", x1=at, x2=at, y1=top, y2=bottom, class_="throttle"))
    return parts


def _series(windows: tuple[SoakWindow, ...], key: str) -> list[tuple[float, float]]:
    """Each window's middle and its value; windows without one are left out."""
    read = [(window.start_s + window.seconds / 2, getattr(window, key)) for window in windows]
    return [(seconds, float(value)) for seconds, value in read if value is not None]


def _cells(window: SoakWindow) -> tuple[str, ...]:
    optional = (window.frequency_mhz, window.temperature_c, window.throttled, window.rss_mib)
    told = ("–" if value is None else f"{value:,.6g}" for value in optional)
    return (f"{window.start_s:.1f}", f"{window.n:,}", f"{window.p50_ms:.4g}", f"{window.p99_ms:.4g}", *told)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:g} min" if seconds >= 60 else f"{seconds:g} s"
