"""Text from outside in documents that have a syntax of their own."""

from __future__ import annotations

from collections.abc import Sequence

from edgeopt.report.format import plain

__all__ = ["markdown_table", "markdown_text"]

_SPECIAL = set("\\`*_{}[]<>#|~$&!")


def markdown_text(text: str) -> str:
    """Text as text: what Markdown or HTML would obey is escaped."""
    return "".join(f"\\{c}" if c in _SPECIAL else c for c in plain(text))


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A GitHub table of cells that are Markdown already."""
    lines = [f"| {' | '.join(heads)} |", f"|{'|'.join([' --- '] * len(heads))}|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
