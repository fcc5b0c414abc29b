"""``edgeopt diff``: what changed between two bundles."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgeopt.core.errors import EdgeOptError

if TYPE_CHECKING:
    from edgeopt.bundle.diff import BundleDiff

__all__ = ["diff"]


@click.command(epilog="Example: edgeopt diff dist/before dist/after -o diff.html")
@click.argument("before", type=click.Path(path_type=Path))
@click.argument("after", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write .html or .md instead of printing.",
)
@click.option("--seed", metavar="N", type=int, default=0, show_default=True, help="Of bootstraps.")
def diff(before: Path, after: Path, output: Path | None, seed: int, *, as_json: bool) -> None:
    """Show what changed from the bundle BEFORE to the bundle AFTER; nothing is run."""
    if output is not None and output.suffix not in {".html", ".md"}:
        raise click.UsageError(f"-o takes a file that ends in .html or .md, not {output.name!r}.")
    from edgeopt.pipeline.diff import diff_bundles

    found = diff_bundles(before, after, seed=seed)
    if output is not None:
        _save(found, output)
    if as_json:
        click.echo(found.model_dump_json(indent=2))
    elif output is None:
        _print(found)


def _save(found: "BundleDiff", output: Path) -> None:
    from edgeopt.report.diff_page import diff_html, diff_markdown

    text = diff_html(found) if output.suffix == ".html" else diff_markdown(found)
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise EdgeOptError(
            "The diff cannot be written.", got=f"{output} ({error.strerror})", fix="Give another file with -o."
        ) from error


def _print(found: "BundleDiff") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from edgeopt.report.diff_page import diff_tables
    from edgeopt.report.format import plain
    from edgeopt.report.gate_words import subject_words
    from edgeopt.report.terminal import bullet

    console = Console(highlight=False)
    for which, subject in (("before", found.before), ("after", found.after)):
        console.print(bullet(f"{which}: {subject_words(subject)}"))
    for part in diff_tables(found):
        console.print(Text(f"\n{part.title}", style="bold"))
        if part.words or not part.rows:
            console.print(Text(plain(part.words or "Nothing changed.")))
        if part.rows:
            table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
            for head in part.heads:
                table.add_column(head, overflow="fold")
            for row in part.rows:
                table.add_row(*(Text(plain(cell)) for cell in row))
            console.print(table)
