"""``edgeopt baseline``: what later bundles are held against, as files for a repository."""

import json
from pathlib import Path

import click

__all__ = ["baseline"]

_FOLDER = click.option(
    "--folder",
    metavar="DIR",
    type=click.Path(path_type=Path),
    default=Path("baselines"),
    show_default=True,
    help="Of the baselines.",
)


@click.group(epilog="Example: edgeopt baseline save dist/model-local --name v1 && edgeopt baseline promote v1")
def baseline() -> None:
    """Keep what was recorded of bundles, and say which one is current. Made to be committed."""


@baseline.command(epilog="Example: edgeopt baseline save dist/model-local --name v1")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--name", metavar="NAME", help="[default: the bundle's folder name]")
@_FOLDER
@click.option("--force", is_flag=True, help="Replace a baseline of that name.")
def save(bundle: Path, name: str | None, folder: Path, *, force: bool) -> None:
    """Keep BUNDLE's figures, latencies and outcomes of single samples; no engine, no data."""
    from edgeopt.bundle.baselines import save_baseline

    click.echo(f"Saved: {save_baseline(bundle, folder, name, force=force)}")


@baseline.command(epilog="Example: edgeopt baseline show v1")
@click.argument("name", required=False)
@_FOLDER
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(name: str | None, folder: Path, *, as_json: bool) -> None:
    """List the baselines, or show the one called NAME (a file or folder will do)."""
    from edgeopt.bundle.baselines import current_name, find_baseline, list_baselines

    if name is None:
        names, current = list_baselines(folder), current_name(folder)
        if as_json:
            click.echo(json.dumps({"baselines": names, "current": current}))
        for one in names if not as_json else ():
            click.echo(f"{one}  (current)" if one == current else one)
        if not names and not as_json:
            click.echo(f"No baselines in {folder}. Save one with `edgeopt baseline save BUNDLE`.")
        return
    found = find_baseline(name, folder)
    if as_json:
        click.echo(found.document.model_dump_json(indent=2))
        return
    from rich.console import Console

    from edgeopt.report.terminal_gate import render_baseline

    render_baseline(found, Console(highlight=False))


@baseline.command(epilog="Example: edgeopt baseline promote v1")
@click.argument("name")
@_FOLDER
def promote(name: str, folder: Path) -> None:
    """Make NAME the baseline that `--baseline current` stands for."""
    from edgeopt.bundle.baselines import promote_baseline

    before = promote_baseline(folder, name)
    click.echo(f"Current: {name}" + (f" (before: {before})" if before and before != name else ""))
