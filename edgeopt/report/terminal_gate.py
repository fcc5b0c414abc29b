"""A gate's outcome on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgeopt.bundle.baseline import Recorded
from edgeopt.bundle.gate import GateResult
from edgeopt.report.format import conditions_text, figure, label, plain
from edgeopt.report.gate_words import figure_words, headline_words, limit_words, subject_words
from edgeopt.report.terminal import bullet

__all__ = ["render_baseline", "render_gate"]

_STYLES = {"PASS": "bold green", "FAIL": "bold red", "INCONCLUSIVE": "bold yellow"}


def render_gate(result: GateResult, console: Console) -> None:
    """The verdict first, then a row per limit, then what was compared."""
    console.print(Text(headline_words(result), style=_STYLES[result.status]))
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for head in ("Verdict", "Limit", "Figure", "Why"):
        table.add_column(head, overflow="fold", no_wrap=head in ("Verdict", "Limit"))
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


def render_baseline(found: Recorded, console: Console) -> None:
    """What it is, what it was measured on, its figures."""
    document = found.document
    data = "none" if document.data is None else f"{document.data.name}, {document.samples} test samples"
    kept = "none kept" if found.outcomes is None else f"{len(found.outcomes)}, {', '.join(found.outcomes.candidate)}"
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    for _ in range(2):
        table.add_column(overflow="fold")
    for name, text in (
        ("name", document.name),
        ("model", f"{document.model.name} (sha256 {document.model.sha256[:12]}…)"),
        ("engine", f"{document.precision} on {document.runtime} {document.runtime_version} for {document.target}"),
        ("recipe", document.recipe),
        ("data", data),
        ("outcomes", kept),
        ("device", document.device.name),
        ("compiled", f"{document.bundle_created}, saved {document.created}"),
    ):
        table.add_row(name, Text(plain(text)))
    for row in document.measurements:
        table.add_row(label(row.name), Text(f"{figure(row)} {conditions_text(row, ('batch',))}".rstrip()))
    console.print(table)
