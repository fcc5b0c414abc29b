"""A diff of two bundles as Markdown, and as one HTML file."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup

from edgeopt.bundle.diff import BundleDiff, TextChange
from edgeopt.report.escape import markdown_table, markdown_text
from edgeopt.report.format import figure, label, plain
from edgeopt.report.gate_words import subject_words
from edgeopt.report.page import bullet_list, plain_page, plain_table

__all__ = ["DiffTable", "diff_html", "diff_markdown", "diff_tables"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DiffTable:
    """One part of a diff: a title, a sentence where there is one, and rows of plain text."""

    title: str
    words: str = ""
    heads: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def diff_tables(diff: BundleDiff) -> tuple[DiffTable, ...]:
    """The parts in the order in which a reader wants them; those where nothing changed say so."""
    samples = diff.samples
    told = (
        f"Of {samples.samples:,} samples {samples.changed:,} are predicted differently; {samples.only_before:,} were right "
        f"only before, {samples.only_after:,} only after."
    )
    return (
        DiffTable(
            title="Figures",
            words="Change: after less before for shares, decibels and metrics, after over before (×) for the rest; "
            "[low, high]: 95 % interval.",
            heads=("Figure", "Before", "After", "Change", ""),
            rows=tuple(
                (
                    label(row.key),
                    figure(row.before),
                    figure(row.after),
                    figure(row.change) if row.change is not None else "–",
                    "paired" if row.paired and row.change is not None and row.change.interval else "",
                )
                for row in diff.figures
            ),
        ),
        DiffTable(
            title="Layers that changed precision",
            heads=("Layer", "Op", "Before", "After", "Why"),
            rows=tuple((r.name, r.op, r.before or "–", r.after or "–", r.reason) for r in diff.layers),
        ),
        _changes("Operators of the graph", diff.ops),
        DiffTable(
            title="Samples that changed sides",
            words=samples.reason or told,
            heads=("Sample", "Label", "Before", "After", "Margin"),
            rows=tuple(
                (str(r.index), r.label, r.before, r.after, "–" if r.margin is None else f"{r.margin:.3f}")
                for r in samples.first
            ),
        ),
        _changes("Facts", diff.facts),
        _changes("Recipe", diff.recipe),
        _changes("Versions", diff.versions),
    )


def diff_markdown(diff: BundleDiff) -> str:
    """GitHub-flavoured Markdown; nothing from outside is taken as markup."""
    blocks = [f"# {markdown_text(_title(diff))}", "\n".join(f"- {markdown_text(line)}" for line in _subjects(diff))]
    for part in diff_tables(diff):
        blocks.append(f"## {part.title}")
        if part.words or not part.rows:
            blocks.append(markdown_text(part.words or "Nothing changed."))
        if part.rows:
            blocks.append(markdown_table(part.heads, [[markdown_text(cell) for cell in row] for row in part.rows]))
    return "\n\n".join(blocks) + "\n"


def diff_html(diff: BundleDiff) -> str:
    """One file that loads nothing; everything from outside is escaped."""
    parts = [Markup("<h1>{}</h1>").format(_title(diff)), bullet_list(_subjects(diff))]
    for part in diff_tables(diff):
        parts.append(Markup("<h2>{}</h2>").format(part.title))
        if part.words or not part.rows:
            parts.append(Markup("<p>{}</p>").format(plain(part.words or "Nothing changed.")))
        if part.rows:
            parts.append(plain_table(part.heads, part.rows))
    return plain_page(_title(diff), parts)


def _title(diff: BundleDiff) -> str:
    return plain(f"{diff.before.name} → {diff.after.name}")


def _subjects(diff: BundleDiff) -> list[str]:
    return [f"before: {subject_words(diff.before)}", f"after: {subject_words(diff.after)}"]


def _changes(title: str, rows: Iterable[TextChange]) -> DiffTable:
    cells = tuple((r.name, "–" if r.before is None else r.before, "–" if r.after is None else r.after) for r in rows)
    return DiffTable(title=title, heads=("", "Before", "After"), rows=cells)
