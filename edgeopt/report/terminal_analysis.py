"""An analysis in a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgeopt.bundle.analysis import Analysis
from edgeopt.report import analysis
from edgeopt.report.analysis import group_table, layer_table, pinned_table, summary_lines
from edgeopt.report.format import plain
from edgeopt.report.terminal import section

__all__ = ["print_analysis"]

_GAP = 2
_FIRST_TO_GO = ("share", "parameters", "width", "exact", "op", "agreement, %", "output size", "drop, pp")
_LEFT = ("layer", "op", "output", "group", "exact", "stays as it is", "why")


def print_analysis(found: Analysis, console: Console, *, every: bool = False) -> None:
    """Layers, memory, groups and their sensitivity; ``every``: also ops that neither multiply nor have weights."""
    console.print(section("Layers"))
    _print(console, layer_table(found, every=every))
    hidden = len(found.layers) - len(analysis.shown_layers(found.layers, every=every))
    if hidden:
        ops = "op" if hidden == 1 else "ops"
        console.print(Text(f"{hidden} {ops} without multiplications and weights left out; --all lists them.", "dim"))
    if found.pruning is not None and found.pruning.groups:
        console.print(section("What can be removed"))
        _print(console, group_table(found.pruning))
    if found.pruning is not None and found.pruning.pinned:
        console.print(section("What stays"))
        _print(console, pinned_table(found.pruning))
    console.print()
    for line in summary_lines(found):
        console.print(Text(line))
    for event in found.events:
        if event.kind == "note":
            console.print(Text(f"Note: {plain(event.message)}", style="dim"))


def _print(console: Console, table: analysis.Table) -> None:
    """A table in the columns that fit; the last resort are folded names."""
    heads, rows = table
    widths = {head: max(map(len, (head, *(row[index] for row in rows)))) for index, head in enumerate(heads)}
    kept = list(heads)
    for head in _FIRST_TO_GO:
        if head in kept and sum(widths[one] + _GAP for one in kept) - _GAP > console.width:
            kept.remove(head)
    shown = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="dim")
    for head in kept:
        left = head in _LEFT
        shown.add_column(head, overflow="fold", justify="left" if left else "right", no_wrap=not left)
    for row in rows:
        shown.add_row(*(Text(cell) for cell, head in zip(row, heads, strict=True) if head in kept))
    console.print(shown)
    if len(kept) < len(heads):
        left_out = ", ".join(head for head in heads if head not in kept)
        console.print(Text(f"No room for: {left_out}; a wider terminal or --json shows them.", style="dim"))
