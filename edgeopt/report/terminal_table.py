"""The comparison of candidates in a terminal: as many columns as fit, the rest below."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgeopt.report.findings import STATUS_WORDS
from edgeopt.report.format import plain
from edgeopt.report.table import Cell, Column, Comparison

__all__ = ["SHIPPED", "first_columns", "print_table"]

SHIPPED = "★"
# The first table: what decides. The others come further down.
_KEY = ("accuracy_top1_pct", "drop_pp", "latency_p50_ms", "latency_ratio", "peak_memory_mib", "size_mib")
# Beside these the interval is what decides; the other intervals are in the Markdown and HTML reports.
_WITH_INTERVAL = ("drop_pp", "latency_ratio")
_GAP = 2


def first_columns(table: Comparison, console: Console) -> list[int]:
    """All where they fit side by side; else those that decide."""
    every = list(range(len(table.columns)))
    if len(_pages(table, every, console.width)) == 1:
        return every
    return [index for index in every if table.columns[index].name in _KEY]


def print_table(table: Comparison, columns: Sequence[int], console: Console) -> None:
    """In as many tables as the width asks for."""
    for number, page in enumerate(_pages(table, columns, console.width)):
        if number:
            console.print()
        console.print(_candidate_table(table, page))


def _pages(table: Comparison, columns: Sequence[int], width: int) -> list[list[int]]:
    """Which of the columns go side by side: as many as fit ``width``, the rest below."""
    first = max(len(_name(row.candidate.id, row.candidate.status, shipped=True)) for row in table.rows) + _GAP
    pages: list[list[int]] = [[]]
    used = first
    for index in columns:
        column = table.columns[index]
        texts = [line for row in table.rows for line, _ in _styled(row.cells[index], column)]
        need = max(len(line) for line in (*column.lines, *texts)) + _GAP
        if pages[-1] and used + need > width:
            pages.append([])
            used = first
        pages[-1].append(index)
        used += need
    return pages


def _candidate_table(table: Comparison, columns: Sequence[int]) -> Table:
    view = Table(box=None, padding=(0, _GAP, 0, 0), collapse_padding=True, pad_edge=False, header_style="dim")
    view.add_column("", overflow="fold")
    for index in columns:
        view.add_column(Text("\n".join(table.columns[index].lines)), justify="right", no_wrap=True)
    for row in table.rows:
        cells = [
            Text("\n").join(Text(text, style=style) for text, style in _styled(row.cells[i], table.columns[i]))
            for i in columns
        ]
        name = Text(_name(row.candidate.id, row.candidate.status, shipped=row.candidate.shipped))
        view.add_row(name, *cells, style="bold" if row.candidate.shipped else "")
    return view


def _name(candidate: str, status: str, *, shipped: bool) -> str:
    """What was only not timed has figures beside it that say so; what does not exist is marked."""
    mark = f" ({STATUS_WORDS[status]})" if status in ("failed", "not_built") else ""
    return f"{SHIPPED if shipped else ' '} {plain(candidate)}{mark}"


def _styled(cell: Cell, column: Column) -> list[tuple[str, str]]:
    """The cell's lines and their styles."""
    if cell.kind == "missing":
        return [("–", "dim")]
    lines = [(cell.text, "dim" if cell.kind == "reference" else "")]
    return [*lines, (cell.interval, "dim")] if cell.interval and column.name in _WITH_INTERVAL else lines
