"""An analysis as files of its own: a page, a picture, a document."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from edgeopt.bundle.analysis import Analysis
from edgeopt.report.analysis import group_table, layer_table, pinned_table, summary_lines
from edgeopt.report.analysis_plots import analysis_plots
from edgeopt.report.axes import WIDTH
from edgeopt.report.format import plain
from edgeopt.report.plots import Plot
from edgeopt.report.svg import element, join, text

__all__ = ["analysis_files", "to_html", "to_json", "to_svg"]

_COLOURS = {
    **{
        f"hue{index}": colour
        for index, colour in enumerate(("#1f6feb", "#d0620b", "#0f8b8d", "#8b46c9", "#b8336a", "#5c7d10"))
    },
    "key-float": "#c0c6ce",
}
# Without variables, which viewers other than browsers do not know.
_STYLE = (
    "text{font:12.5px sans-serif;fill:#15181d}.title{font-weight:600;font-size:15px}.tick,.axis{fill:#5b6470}"
    ".grid{stroke:#e3e6ea}.curve{fill:none;stroke-width:2}.peak{fill:#b3261e}"
) + "".join(
    f".{name} .fill,.{name} .dot{{fill:{colour}}}.{name} .curve{{stroke:{colour}}}" for name, colour in _COLOURS.items()
)


def analysis_files(found: Analysis, output: Path) -> dict[Path, str]:
    """What is written where: one file by its suffix, or all three into a folder."""
    makers = {".json": to_json, ".svg": to_svg, ".html": to_html}
    if output.suffix in makers:
        return {output: makers[output.suffix](found)}
    return {output / f"analysis{suffix}": make(found) for suffix, make in makers.items()}


def to_json(found: Analysis) -> str:
    """The document."""
    return found.model_dump_json(indent=2) + "\n"


def to_svg(found: Analysis) -> str:
    """All pictures, one below the other; light."""
    parts: list[Markup] = [element("style", Markup(_STYLE))]  # noqa: S704 - a constant
    y = 0.0
    for plot in analysis_plots(found):
        drawn, height = _placed(plot, y)
        parts.append(drawn)
        y += height
    whole = element(
        "svg",
        element("title", f"{plain(found.model.name)}: analysis"),
        *parts,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {y:.0f}",
        width=WIDTH,
        height=y,
        role="img",
        style="background:#fff",
    )
    return f"{whole}\n"


def to_html(found: Analysis) -> str:
    """A self-contained page; equal analyses give equal bytes."""
    environment = Environment(
        loader=PackageLoader("edgeopt.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(plain=plain)
    page = environment.get_template("analysis.html.j2").render(
        found=found,
        lines=summary_lines(found),
        plots=analysis_plots(found),
        layers=layer_table(found),
        groups=group_table(found.pruning) if found.pruning else None,
        pinned=pinned_table(found.pruning) if found.pruning and found.pruning.pinned else None,
    )
    return "\n".join(line.rstrip() for line in page.splitlines()) + "\n"


def _placed(plot: Plot, y: float) -> tuple[Markup, float]:
    """A plot below what is there already, with its title, its legend and its height."""
    heading = [text(12, y + 24, plot.title, class_="title")]
    if plot.svg is None:
        return join([*heading, text(12, y + 46, f"Not there: {plot.missing}.", class_="axis")]), 64.0
    top, x = y + 46, 12.0
    for style, name in plot.legend:
        if x + 24 + 7 * len(name) > WIDTH and x > 12:
            x, top = 12.0, top + 18
        heading.append(element("g", element("circle", cx=x + 5, cy=top - 4, r=5, class_="dot"), class_=style))
        heading.append(text(x + 15, top, name, class_="axis"))
        x += 32 + 7 * len(name)
    top += 12 if plot.legend else -14
    height = float(str(plot.svg).partition('viewBox="0 0 ')[2].partition('"')[0].split()[1])
    placed = str(plot.svg).replace("<svg ", f'<svg x="0" y="{top:.0f}" width="{WIDTH}" height="{height:.0f}" ', 1)
    inner = Markup(placed)  # noqa: S704 - made of elements that are escaped
    return join([*heading, inner]), top - y + height + 12
