"""The report in a terminal: findings first, tables that fit 80 columns, no colour when piped."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from edgeopt.bundle.document import Report
from edgeopt.bundle.layout import ENGINE, REPORT_HTML
from edgeopt.core.events import EventKind
from edgeopt.report.accuracy import flip_words, metric_rows, worst_slice
from edgeopt.report.coverage import coverage_lines, outside_lines
from edgeopt.report.findings import (
    device_notes,
    findings,
    limit_lines,
    next_verb,
    not_measured,
    parity_figures,
    parity_summary,
    stage_groups,
    stand_ins,
    verdict_words,
)
from edgeopt.report.format import figure, plain
from edgeopt.report.ladder import RUNG_HEADS, rung_lines
from edgeopt.report.pruning import pruned_words, search_words
from edgeopt.report.roofline import roofline_lines
from edgeopt.report.summary import layer_summary, measured_on, worst_first
from edgeopt.report.table import comparison
from edgeopt.report.terminal_numerics import render_numerics
from edgeopt.report.terminal_table import SHIPPED, first_columns, print_table
from edgeopt.report.trials import trial_lines
from edgeopt.report.waterfall import waterfall_table

__all__ = [
    "bullet",
    "indented",
    "key_values",
    "render",
    "render_candidates",
    "render_coverage",
    "render_next",
    "render_verdict",
    "section",
]

VERDICT_STYLES = {"PASS": "bold green", "FAIL": "bold red", "INCONCLUSIVE": "bold yellow"}
_LAYERS_SHOWN = 3
_FINDINGS_SHOWN = 8
_FAST_S = 0.1


def render(report: Report, console: Console, bundle: Path | None = None) -> None:
    """Print the report: what is shipped and why, the comparison, is it right, on what it was measured.

    Args:
        report: The document.
        console: Where to.
        bundle: The folder that holds it, to be named on the first screen.
    """
    console.print(_title(report))
    if bundle is not None:
        console.print(Text(f"Bundle: {plain(str(bundle))} ({REPORT_HTML} has it all)"), soft_wrap=True)
    console.print()
    for line in report.headline:
        console.print(bullet(plain(line)))
    render_verdict(report, console)
    render_candidates(report, console)
    _print_ladder(report, console)
    _print_waterfall(report, console)
    _print_list(console, "Pruning", [*map(search_words, report.pruning), *map(pruned_words, report.pruned)])
    render_coverage(report, console, most=_FINDINGS_SHOWN)
    _print_list(console, "Not measured", [f"{who}: {why}" for who, why in not_measured(report)])
    render_next(report, console, bundle)
    _print_findings(console, report, "Fell back", "fallback")
    _print_findings(console, report, "Warnings", "warning")
    _print_trials(report, console)
    _print_more(report, console)
    _print_accuracy(report, console)
    _print_parity(report, console)
    if report.numerics is not None:
        render_numerics(report.numerics, console)
    _print_layers(report, console)
    if report.roofline is not None:
        _print_list(console, "Against the machine's peaks", roofline_lines(report.roofline))
    _print_stages(report, console)
    console.print(section("Measured on"))
    console.print(indented(measured_on(report)))
    conditions = " · ".join(f"{plain(k).replace('_', ' ')}: {plain(v)}" for k, v in report.device.conditions.items())
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


def bullet(text: str, mark: str = "•") -> RenderableType:
    """One point of a list, wrapped under itself."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=3, justify="right")
    grid.add_column(overflow="fold")
    grid.add_row(mark, Text(text))
    return grid


def render_verdict(report: Report, console: Console) -> None:
    """Print the verdict and what it rests on, limit by limit; of a single limit only that."""
    verdict, lines = report.verdict, limit_lines(report)
    console.print()
    if len(lines) > 1:
        console.print(Text.assemble((verdict.status, VERDICT_STYLES[verdict.status]), "  ", verdict_words(report)))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for status, words in lines:
        indent = "  " if len(lines) > 1 else ""
        grid.add_row(Text(f"{indent}{status}", style=VERDICT_STYLES[status]), Text(words))
    console.print(grid)


def render_candidates(report: Report, console: Console) -> None:
    """Print the comparison, and whose figures these are; of many figures those that decide."""
    table = comparison(report)
    console.print()
    print_table(table, first_columns(table, console), console)
    legend = f"{SHIPPED} shipped (objective: {plain(report.objective)}) · [low, high]: 95 % interval"
    console.print(indented(legend, "dim"))
    for line in stand_ins(report):
        console.print(indented(line, "dim"))


def render_coverage(report: Report, console: Console, *, most: int | None = None) -> None:
    """Print what runs in int8, and what of the shipped engine does not; ``most``: no more lines of that."""
    lines = outside_lines(report.shipped.coverage)
    told = coverage_lines(report)
    if not told:
        return
    shown = lines[:most]
    more = [f"and {len(lines) - len(shown)} more, in {REPORT_HTML}"] if len(lines) > len(shown) else []
    _print_list(console, "In int8", told)
    if lines:
        console.print(indented("Outside of int8, of what is shipped:"))
    for line in (*shown, *more):
        console.print(bullet(line, mark="–"))


def render_next(report: Report, console: Console, bundle: Path | None = None) -> None:
    """Print what is to be done on the device, where only that can build the engine."""
    for candidate in report.candidates:
        if candidate.next_command is None:
            continue
        console.print(section(f"To {next_verb(candidate)} {plain(candidate.id)} on its device"))
        command = candidate.next_command
        inside = f"cd {ENGINE} && "
        if bundle is not None and command.startswith(inside):
            command = f"cd {shlex.quote(bundle.name)}/{ENGINE} && {command.removeprefix(inside)}"
        console.print(indented("Copy the bundle's folder there, and run beside it:" if bundle else "In the bundle:"))
        console.print(Text(f"    {plain(command)}", style="bold"), soft_wrap=True)
    for note in device_notes(report):
        console.print(indented(note, "dim"))


def _print_ladder(report: Report, console: Console) -> None:
    """One row per rung that was tried, one line for each that has more to say; the other figures are above."""
    lines = rung_lines(report)
    if not lines:
        return
    console.print(section("Ladder"))
    tried = [line for line in lines if line.cells[-1] != "–"]
    columns = [RUNG_HEADS.index(head) for head in ("rung", "", "drop, pp", "ratio to FP32", "minutes", "so far")]
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for index in columns:
        table.add_column(
            RUNG_HEADS[index], justify="right" if index > 1 else "left", no_wrap=index > 0, overflow="fold"
        )
    for line in tried:
        first, *rest = (line.cells[index].replace(" [", "\n[") for index in columns)
        table.add_row(Text(f"  {first}"), *map(Text, rest))
    if tried:
        console.print(table)
    for line in lines:
        if line.message:
            console.print(bullet(f"{line.name}: {line.message}"))


def _print_waterfall(report: Report, console: Console) -> None:
    """One row per stage from FP32 to what is made."""
    found = waterfall_table(report)
    if found is None:
        return
    console.print(section("Waterfall"))
    heads, rows = found.narrow()
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for index, head in enumerate(heads):
        table.add_column(head if index else f"  {head}", justify="right" if index else "left", overflow="fold")
    for first, *rest in rows:
        table.add_row(Text(f"  {first}"), *(Text(cell.replace(" [", "\n[").replace(" (", "\n(")) for cell in rest))
    console.print(table)
    console.print(indented(found.caption, "dim"))


def _print_trials(report: Report, console: Console) -> None:
    """One line for each technique that was tried on the tuning split."""
    tried = [line for line in trial_lines(report) if line[1] != "idle"]
    if not tried:
        return
    console.print(section("What each technique brought, on the tuning split"))
    for name, status, divergence, sqnr, agreement, _ in tried:
        console.print(bullet(f"{name}: {status}; divergence {divergence}, SQNR {sqnr} dB, agreement {agreement} %"))


def _print_more(report: Report, console: Console) -> None:
    table = comparison(report)
    first = first_columns(table, console)
    columns = [index for index in range(len(table.columns)) if index not in first]
    if columns:
        console.print(section("More figures"))
        print_table(table, columns, console)


def _print_accuracy(report: Report, console: Console) -> None:
    """One line per further metric; the worst slice, and how many samples changed sides."""
    lines = [f"{name}: {mine}, FP32 {theirs}; drop {drop}" for name, theirs, mine, drop in metric_rows(report)]
    lines += [line for line in (worst_slice(report), flip_words(report)) if line]
    _print_list(console, "Accuracy", lines)


def _print_list(console: Console, title: str, lines: Sequence[str]) -> None:
    if lines:
        console.print(section(title))
        for line in lines:
            console.print(bullet(line))


def _print_findings(console: Console, report: Report, title: str, kind: EventKind) -> None:
    lines = [finding.text for finding in findings(report, kind)]
    more = len(lines) - _FINDINGS_SHOWN
    if more > 1:
        lines = [*lines[:_FINDINGS_SHOWN], f"and {more} more, in {REPORT_HTML}"]
    _print_list(console, title, lines)


def _print_parity(report: Report, console: Console) -> None:
    if not report.parity:
        return
    console.print(section("Is it right"))
    console.print(indented(parity_summary(report)))
    failed = [row for row in report.parity if not row.passed]
    if not failed:
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for title in ("stage", "against", "figures", "tolerance", ""):
        table.add_column(title, overflow="fold")
    for row in failed:
        texts = [Text(plain(t)) for t in (row.stage, row.against, parity_figures(row), row.tolerance)]
        table.add_row(*texts, Text("FAIL", style=VERDICT_STYLES["FAIL"], overflow="ignore", no_wrap=True))
    console.print(table)


def _print_layers(report: Report, console: Console) -> None:
    """How many are in which precision, which lose most, and which are not quantized and why."""
    if not report.layers:
        return
    console.print(section("Layers"))
    console.print(indented(layer_summary(report)))
    worst = [row for row in worst_first(report) if row.sqnr.value is not None][1 : 1 + _LAYERS_SHOWN]
    if worst:
        shown = ", ".join(f"{plain(row.name)} {figure(row.sqnr, interval=False)}" for row in worst)
        console.print(indented(f"Then: {shown}.", "dim"))
    left = [f"{plain(r.name)} ({plain(r.reason)})" for r in report.layers if r.precision == "float" and r.reason]
    if left:
        more = f", … {len(left) - _FINDINGS_SHOWN} more" if len(left) > _FINDINGS_SHOWN else ""
        console.print(indented(f"In float: {', '.join(left[:_FINDINGS_SHOWN])}{more}.", "dim"))


def _print_stages(report: Report, console: Console) -> None:
    """The longest first; what took no time is only named."""
    groups = stage_groups(report)
    if not groups:
        return
    console.print(section("Stages"))
    made = [g for g in groups if not g.cached]
    parts = [f"{g.name} {_seconds(g.seconds)}" for g in made if g.seconds >= _FAST_S]
    fast = [g.name for g in made if g.seconds < _FAST_S]
    cached = [g.name for g in groups if g.cached]
    if fast:
        parts.append(f"{', '.join(fast)} under {_FAST_S:g} s" + (" each" if len(fast) > 1 else ""))
    if cached:
        parts.append(f"cached: {', '.join(cached)}")
    total = sum(group.seconds for group in groups)
    console.print(indented(f"{_seconds(total)} in all: {' · '.join(parts)}"))


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s"
