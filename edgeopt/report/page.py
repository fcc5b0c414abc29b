"""A plain HTML page of headings, lists and tables: one file that loads nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from markupsafe import Markup, escape

from edgeopt.report.format import plain

__all__ = ["bullet_list", "plain_page", "plain_table"]


def plain_page(title: str, parts: Iterable[Markup]) -> str:
    """The whole file."""
    return str(_PAGE.format(title=escape(title), body=Markup("\n").join(parts)))


def plain_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Markup:
    """A table of cells that are text."""
    head = Markup("").join(Markup("<th>{}</th>").format(text) for text in heads)
    body = Markup("").join(_row(row) for row in rows)
    return Markup("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>").format(head, body)


def bullet_list(lines: Iterable[str]) -> Markup:
    """Lines of text as a list."""
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
