"""The part of ``edgeopt eval`` that compares devices."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from edgeopt.core.errors import EdgeOptError

if TYPE_CHECKING:
    from edgeopt.bundle.numerics import NumericsSection

__all__ = ["compares", "show_comparison"]

_ENDINGS = (".md", ".html", ".json")


def compares(devices: Sequence[str], *, reference: Path | None, output: Path | None) -> bool:
    """Whether devices are to be compared with this machine: several of them, or one that is emulated.

    Raises:
        EdgeOptError: What was asked for beside does not go with it.
    """
    comparison = len(devices) > 1 or devices[0].startswith("qemu")
    if comparison and reference is not None:
        raise EdgeOptError(
            "Several devices, or an emulated one, are compared with this machine.",
            got="--reference",
            fix="Leave it out, or evaluate on one real device.",
        )
    if output is not None and (not comparison or output.suffix not in _ENDINGS):
        raise EdgeOptError(
            "A comparison of devices is written as Markdown, HTML or JSON.",
            got=str(output),
            fix="--device qemu:cortex-a53 --device qemu:max -o isa.md",
        )
    return comparison


def show_comparison(section: "NumericsSection", output: Path | None, *, as_json: bool) -> int:
    """Print the table, and write it where asked; exit code 1 where a device could not run the engine."""
    from edgeopt.report import numerics
    from edgeopt.report.terminal_numerics import render_numerics

    if output is not None:
        write = {".md": numerics.numerics_markdown, ".html": numerics.numerics_html, ".json": numerics.numerics_json}
        output.write_text(write[output.suffix](section), encoding="utf-8")
    if as_json:
        click.echo(numerics.numerics_json(section), nl=False)
    else:
        render_numerics(section, Console(highlight=False))
    if output is not None:
        click.echo(f"Written: {output}", err=True)
    return 1 if any(row.error for row in section.rows) else 0
