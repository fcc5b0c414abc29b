"""A diff of two bundles as Markdown, and as one HTML file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from edgeopt.bundle.diff import BundleDiff, TextChange
from edgeopt.report.escape import markdown_table, markdown_text
from edgeopt.report.format import figure, label, plain
from edgeopt.report.gate_words import subject_words

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
            words="Change: after less before for shares and metrics, after over before (×) for the rest; "
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
    parts = [Markup("<h1>{}</h1>").format(_title(diff)), _list(_subjects(diff))]
    for part in diff_tables(diff):
        parts.append(Markup("<h2>{}</h2>").format(part.title))
        if part.words or not part.rows:
            parts.append(Markup("<p>{}</p>").format(plain(part.words or "Nothing changed.")))
        if part.rows:
            head = Markup("").join(Markup("<th>{}</th>").format(text) for text in part.heads)
            body = Markup("").join(_row(row) for row in part.rows)
            parts.append(Markup("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>").format(head, body))
    body = Markup("\n").join(parts)
    return str(_PAGE.format(title=escape(_title(diff)), body=body))


def _title(diff: BundleDiff) -> str:
    return plain(f"{diff.before.name} → {diff.after.name}")


def _subjects(diff: BundleDiff) -> list[str]:
    return [f"before: {subject_words(diff.before)}", f"after: {subject_words(diff.after)}"]


def _changes(title: str, rows: Iterable[TextChange]) -> DiffTable:
    cells = tuple((r.name, "–" if r.before is None else r.before, "–" if r.after is None else r.after) for r in rows)
    return DiffTable(title=title, heads=("", "Before", "After"), rows=cells)


def _list(lines: Sequence[str]) -> Markup:
    return Markup("<ul>{}</ul>").format(Markup("").join(Markup("<li>{}</li>").format(line) for line in lines))


def _row(cells: Sequence[str]) -> Markup:
    return Markup("<tr>{}</tr>").format(Markup("").join(Markup("<td>{}</td>").format(plain(cell)) for cell in cells))


_PAGE = Markup(
    """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color-scheme: light dark; }}
table {{ border-collapse: collapse; display: block; overflow-x: auto; }}
th, td {{ text-align: left; padding: .25rem .75rem .25rem 0; border-bottom: 1px solid #8886; vertical-align: top; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""
)
