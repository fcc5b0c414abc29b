"""``edgeopt cache``: what earlier runs kept."""

import json

import click

from edgeopt.pipeline.cache import StageCache

__all__ = ["cache"]


@click.group(epilog="Example: edgeopt cache clear --older-than 30")
def cache() -> None:
    """Show or clear the cache of earlier runs' stages."""


@cache.command(epilog="Example: edgeopt cache info --json")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(*, as_json: bool) -> None:
    """Say where the cache is, and what each kind of stage holds there."""
    store = StageCache()
    stages: dict[str, tuple[int, int]] = {}
    for entry in store.entries():
        count, size = stages.get(entry.stage, (0, 0))
        stages[entry.stage] = (count + 1, size + entry.bytes)
    if as_json:
        rows = {name: {"entries": count, "bytes": size} for name, (count, size) in stages.items()}
        click.echo(json.dumps({"root": str(store.root), "stages": rows}))
        return
    click.echo(f"{store.root}")
    for name, (count, size) in stages.items():
        click.echo(f"  {name:<12} {count:>5} entries  {size / 2**20:>9.1f} MiB")
    total = sum(size for _, size in stages.values())
    click.echo(f"  {'total':<12} {sum(c for c, _ in stages.values()):>5} entries  {total / 2**20:>9.1f} MiB")


@cache.command(epilog="Example: edgeopt cache clear")
@click.option(
    "--older-than",
    "days",
    metavar="DAYS",
    type=click.FloatRange(min=0),
    default=0.0,
    help="Only what was not used for DAYS.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def clear(*, days: float, as_json: bool) -> None:
    """Delete what earlier runs kept; the next run makes it anew."""
    freed = StageCache().clear(older_than_s=days * 86400)
    click.echo(json.dumps({"freed_bytes": freed}) if as_json else f"Freed {freed / 2**20:.1f} MiB.")
