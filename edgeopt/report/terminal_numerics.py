"""The table of other instruction sets in a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from edgeopt.bundle.numerics import NumericsSection
from edgeopt.report.numerics import TITLE, numerics_table

__all__ = ["render_numerics"]

_STYLES = {"inside": "green", "OUTSIDE": "bold red", "not run": "bold yellow"}
_NARROW = {"outputs that differ": "outputs\nthat differ", "changed predictions": "changed\npredictions"}


def render_numerics(section: NumericsSection, console: Console) -> None:
    """Print one row per device, this machine first, and what there is to say of them. Intervals are in the documents."""
    found = numerics_table(section)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    kept = [place for place, head in enumerate(found.heads) if head != "agreement"]  # the changed predictions say it
    for head in (found.heads[place] for place in kept):
        table.add_column(_NARROW.get(head, head.replace("difference, ", "\ndifference, ")), overflow="fold")
    table.columns[0].min_width = max(len(spec) for spec in found.specs)
    for spec, row in zip(found.specs, found.rows, strict=True):
        shown = (row[place].partition(" [")[0] for place in kept[1:])
        cells = (Text(cell, style=_STYLES.get(cell, "")) for cell in shown)
        table.add_row(Text(spec), *cells)
    console.print()
    console.print(Text(TITLE, style="bold"))
    console.print(table)
    for text in (found.caption, *found.notes):
        console.print(Padding(Text(text, style="dim"), (0, 0, 0, 2)))
