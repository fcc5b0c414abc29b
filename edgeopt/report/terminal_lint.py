"""A lint's outcome on the terminal: grouped by rule, each with its nodes, why, what to do and who says so."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from edgeopt.backends.lint.document import FixReport, LintResult, LintRow, RuleRow
from edgeopt.report.format import plain
from edgeopt.report.terminal import bullet

__all__ = ["render_lint", "render_rules"]

_STYLES = {"error": "bold red", "warning": "bold yellow", "note": "bold blue"}
_SHOWN = 5


def render_lint(result: LintResult, console: Console, *, notes: bool = True) -> None:
    """The counts first, then a paragraph per rule.

    Args:
        notes: Whether findings of the severity ``note`` are shown; they are counted all the same.
    """
    counts = ", ".join(_count(result.count(each), each) for each in ("error", "warning", "note"))
    console.print(Text(f"{plain(result.model)} for {result.target} ({', '.join(result.runtimes)}): {counts}"))
    console.print(Text(f"opset {result.opset}, {result.nodes} nodes, {result.graph}; nothing was run", style="dim"))
    if result.fix is not None:
        _render_fix(result.fix, console)
    groups: dict[tuple[str, str], list[LintRow]] = {}
    for row in result.findings:
        if notes or row.severity != "note":
            groups.setdefault((row.runtime, row.rule), []).append(row)
    for (runtime, rule), rows in groups.items():
        _render_group(runtime, rule, rows, console)


def render_rules(rules: Iterable[RuleRow], console: Console) -> None:
    """A paragraph per rule; a rule of several runtimes once."""
    shown: dict[str, list[str]] = {}
    first: dict[str, RuleRow] = {}
    for row in rules:
        shown.setdefault(row.rule, []).append(row.runtime)
        first.setdefault(row.rule, row)
    for rule, runtimes in shown.items():
        row = first[rule]
        console.print(Text.assemble((rule, _STYLES[row.severity]), f" {row.severity}, {row.effect}: {row.title}"))
        _line(console, "where", ", ".join(runtimes))
        _line(console, "why", row.why)
        _line(console, "fix", row.fix)
        _line(console, "source", row.source)


def _render_group(runtime: str, rule: str, rows: list[LintRow], console: Console) -> None:
    head = rows[0]
    console.print()
    console.print(
        Text.assemble((f"{head.severity} {rule}", _STYLES[head.severity]), f" {runtime}: {plain(head.title)}")
    )
    for row in rows[:_SHOWN]:
        place = f"{plain(row.node)}: " if row.node else ""
        console.print(bullet(f"{place}{plain(row.message)}"))
    if len(rows) > _SHOWN:
        console.print(
            bullet(f"and {len(rows) - _SHOWN} more: {', '.join(plain(r.node or '') for r in rows[_SHOWN:][:20])}")
        )
    _line(console, "fix", head.fix)
    _line(console, "source", head.source)


def _render_fix(fix: FixReport, console: Console) -> None:
    if fix.output is not None:
        console.print(Text(f"Wrote {plain(fix.output)}; the findings below are what is left.", style="bold"))
    else:
        console.print(Text("Nothing could be fixed; no file was written.", style="bold"))
    for applied in fix.applied:
        console.print(
            bullet(f"{applied.name}: {applied.gone} findings gone ({', '.join(applied.rules)}); {applied.verified}")
        )
    for refused in fix.refused:
        console.print(bullet(f"not done: {plain(refused)}"))


def _line(console: Console, name: str, text: str) -> None:
    if text:
        console.print(bullet(f"{name}: {plain(text)}", mark=" "))


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"
