"""``edgeopt inspect`` and ``edgeopt verify``: what a bundle is, and whether it still is that."""

from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console

__all__ = ["inspect", "verify"]


@click.command(epilog="Example: edgeopt inspect dist/model-local --json")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def inspect(bundle: Path, *, as_json: bool) -> None:
    """Show what BUNDLE holds and what it costs."""
    from edgeopt.bundle.layout import report_json
    from edgeopt.bundle.load import load_bundle

    loaded = load_bundle(bundle)
    if as_json:
        click.echo(report_json(loaded.report), nl=False)
        return
    from edgeopt.report.inspect import render_bundle

    render_bundle(loaded, Console(highlight=False))


@click.command(epilog="Example: edgeopt verify dist/model-local")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(bundle: Path, *, as_json: bool) -> int:
    """Check every hash of BUNDLE and re-run its reference inputs; exit 1 if anything differs."""
    from edgeopt.pipeline.verify import verify_bundle

    result = verify_bundle(bundle)
    if as_json:
        import json

        click.echo(json.dumps(asdict(result), indent=2, default=str))
    else:
        click.echo(str(result))
    return 0 if result.ok else 1
