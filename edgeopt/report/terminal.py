"""The report in a terminal: findings first, tables that fit 80 columns, no colour when piped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from edgeopt.bundle.document import Report
from edgeopt.report.format import figure, label, limit_text, plain
from edgeopt.report.summary import STATUS_WORDS, events, layer_summary, measured_on, not_measured, worst_first
from edgeopt.report.table import Cell, Column, Comparison, comparison

__all__ = ["bullet", "indented", "key_values", "render", "render_candidates", "render_verdict", "section"]

VERDICT_STYLES = {"PASS": "bold green", "FAIL": "bold red", "INCONCLUSIVE": "bold yellow"}
_SHIPPED = "★"
_LAYERS_SHOWN = 5
# Beside these the interval is what decides; the other intervals are in the Markdown and HTML reports.
_WITH_INTERVAL = ("drop_pp", "latency_p50_ms", "latency_ratio")
_GAP = 2


def render(report: Report, console: Console) -> None:
    """Print the report: what is shipped and why, the comparison, is it right, on what it was measured."""
    console.print(_title(report))
    console.print()
    for line in report.headline:
        console.print(bullet(plain(line)))
    render_verdict(report, console)
    render_candidates(report, console)
    _print_list(console, "Not measured", [f"{who}: {why}" for who, why in not_measured(report)])
    for candidate in report.candidates:
        if candidate.next_command:
            console.print(bullet(f"To build {plain(candidate.id)} on its device:"))
            console.print(Text(f"    {plain(candidate.next_command)}", style="bold"), soft_wrap=True)
    _print_list(console, "Fell back", [located.text for located in events(report, "fallback")])
    _print_list(console, "Warnings", [located.text for located in events(report, "warning")])
    _print_parity(report, console)
    _print_layers(report, console)
    _print_stages(report, console)
    console.print(section("Measured on"))
    console.print(indented(measured_on(report)))
    conditions = " · ".join(f"{plain(k)}: {plain(v)}" for k, v in report.device.conditions.items())
    if conditions:
        console.print(indented(conditions, "dim"))


def indented(text: str | Text, style: str = "") -> RenderableType:
    """A paragraph that keeps its indent when it wraps."""
    return Padding(Text(text, style=style) if isinstance(text, str) else text, (0, 0, 0, 2), expand=False)


def section(title: str) -> RenderableType:
    """A heading with a blank line before it."""
    return Group(Text(""), Text(title, style="bold"))


def key_values(rows: Iterable[tuple[str, str]]) -> Table:
    """Two columns without lines: a name, and text that may wrap."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(f"  {name}"), Text(value))
    return table


def _title(report: Report) -> Text:
    return Text.assemble(
        (plain(report.model.name), "bold"),
        " → ",
        (plain(report.target.name), "bold"),
        (f"\n{plain(report.target.title)} · edgeopt {plain(report.edgeopt_version)} · {plain(report.created)}", "dim"),
    )


def bullet(text: str) -> RenderableType:
    """One point of a list, wrapped under itself."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=3, justify="right")
    grid.add_column(overflow="fold")
    grid.add_row("•", Text(text))
    return grid


def render_verdict(report: Report, console: Console) -> None:
    """Print the verdict and what it rests on, limit by limit."""
    verdict = report.verdict
    console.print()
    badge = Text.assemble((verdict.status, VERDICT_STYLES[verdict.status]), "  ", plain(verdict.summary))
    console.print(badge)
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for row in verdict.limits:
        text = f"{limit_text(row)}: {figure(row.figure)}. {plain(row.message)}"
        grid.add_row(Text(f"  {row.status}", style=VERDICT_STYLES[row.status]), Text(text))
    if verdict.limits:
        console.print(grid)


def render_candidates(report: Report, console: Console) -> None:
    """Print the comparison, in as many tables as the width asks for, and why figures are missing."""
    table = comparison(report)
    console.print(section("Candidates"))
    for columns in _pages(table, console.width):
        console.print()
        console.print(_candidate_table(table, columns))
    console.print()
    legend = f"{_SHIPPED} shipped (objective: {plain(report.objective)}) · [low, high]: 95 % interval"
    console.print(indented(legend, "dim"))
    for number, note in enumerate(table.notes, start=1):
        console.print(indented(f"({number}) not measured: {note}", "dim"))


def _pages(table: Comparison, width: int) -> list[list[int]]:
    """Which columns go side by side: as many as fit ``width``, the rest below."""
    first = max(len(_name(row.candidate.id, shipped=True)) for row in table.rows) + _GAP
    pages: list[list[int]] = [[]]
    used = first
    for index, column in enumerate(table.columns):
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
        name = Text(_name(row.candidate.id, shipped=row.candidate.shipped))
        if row.candidate.status != "measured":
            name.append(f"\n  {STATUS_WORDS[row.candidate.status]}", style="dim")
        view.add_row(name, *cells, style="bold" if row.candidate.shipped else "")
    return view


def _name(candidate: str, *, shipped: bool) -> str:
    return f"{_SHIPPED if shipped else ' '} {plain(candidate)}"


def _styled(cell: Cell, column: Column) -> list[tuple[str, str]]:
    """The cell's lines and their styles."""
    if cell.kind == "missing":
        return [(f"– ({cell.note})", "dim")]
    lines = [(cell.text, "dim" if cell.kind == "reference" else "")]
    return [*lines, (cell.interval, "dim")] if cell.interval and column.name in _WITH_INTERVAL else lines


def _print_list(console: Console, title: str, lines: Sequence[str]) -> None:
    if lines:
        console.print(section(title))
        for line in lines:
            console.print(bullet(line))


def _print_parity(report: Report, console: Console) -> None:
    if not report.parity:
        return
    console.print(section("Is it right"))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for title in ("stage", "against", "figures", "tolerance", ""):
        table.add_column(title, overflow="fold")
    for row in report.parity:
        status = "PASS" if row.passed else "FAIL"
        figures = "\n".join(f"{label(m.name)} {figure(m)}" for m in row.figures)
        texts = [Text(plain(row.stage)), Text(plain(row.against)), Text(figures), Text(plain(row.tolerance))]
        table.add_row(*texts, Text(status, style=VERDICT_STYLES[status], overflow="ignore", no_wrap=True))
    console.print(table)


def _print_layers(report: Report, console: Console) -> None:
    if not report.layers:
        return
    console.print(section("Layers"))
    console.print(indented(layer_summary(report)))
    rows = [
        (
            plain(r.name),
            f"{figure(r.sqnr, interval=False)} · {plain(r.precision)}" + (f" · {plain(r.reason)}" if r.reason else ""),
        )
        for r in worst_first(report)[:_LAYERS_SHOWN]
    ]
    console.print(key_values(rows))


def _print_stages(report: Report, console: Console) -> None:
    if not report.stages:
        return
    console.print(section("Stages"))
    parts = [f"{plain(s.name)} {figure(s.wall)}" + (" (cached)" if s.cached else "") for s in report.stages]
    console.print(indented(" · ".join(parts)))
