"""A gate's outcome on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgeopt.bundle.gate import GateResult
from edgeopt.report.format import plain
from edgeopt.report.gate_words import figure_words, headline_words, limit_words, subject_words
from edgeopt.report.terminal import bullet

__all__ = ["render_gate"]

_STYLES = {"PASS": "bold green", "FAIL": "bold red", "INCONCLUSIVE": "bold yellow"}


def render_gate(result: GateResult, console: Console) -> None:
    """The verdict first, then a row per limit, then what was compared."""
    console.print(Text(headline_words(result), style=_STYLES[result.status]))
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for head in ("Verdict", "Limit", "Figure", "Why"):
        table.add_column(head, overflow="fold", no_wrap=head == "Limit")
    for row in result.rows:
        table.add_row(
            Text(row.status, style=_STYLES[row.status]),
            Text(limit_words(row)),
            Text(figure_words(row)),
            Text(plain(row.message)),
        )
    console.print(table)
    console.print()
    for subject in (result.bundle, result.baseline):
        if subject is not None:
            console.print(bullet(subject_words(subject)))
    for note in result.notes:
        console.print(bullet(plain(note)))
