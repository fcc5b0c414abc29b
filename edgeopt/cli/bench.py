"""``edgeopt bench`` and ``edgeopt eval``: measure a bundle again."""

import json
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from edgeopt.cli.progress import progress_bars
from edgeopt.core.measurement import Measurement
from edgeopt.pipeline.remeasure import bench_bundle, evaluate_bundle

__all__ = ["bench", "eval_"]


@click.command(epilog="Example: edgeopt bench dist/model-local --batch 1 --batch 8 --threads 2")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--batch", "batches", type=click.IntRange(min=1), multiple=True, help="A batch size for throughput; repeatable."
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads of the runtime.  [default: the recipe's]")
@click.option("--samples", type=click.IntRange(min=10), help="Timed inferences.  [default: the recipe's]")
@click.option("--device", default="local", show_default=True, help="Where to measure.")
@click.option("--json", "as_json", is_flag=True, help="Print the measurements as JSON.")
def bench(
    bundle: Path, batches: Sequence[int], threads: int | None, samples: int | None, device: str, *, as_json: bool
) -> None:
    """Measure BUNDLE's latency, throughput, cold start and memory again, in a fresh process."""
    with progress_bars(quiet=as_json) as progress:
        measured = bench_bundle(
            bundle, device=device, batches=tuple(batches), threads=threads, samples=samples, progress=progress
        )
    _show(measured, as_json=as_json)


@click.command("eval", epilog="Example: edgeopt eval dist/model-local --data field-photos.yaml")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("-d", "--data", required=True, help="As for compile; its test split is used.")
@click.option(
    "--reference", type=click.Path(path_type=Path), help="A bundle (or ONNX file) in FP32, for the paired drop."
)
@click.option("--device", default="local", show_default=True, help="Where to run.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the splits.")
@click.option("--json", "as_json", is_flag=True, help="Print the measurements as JSON.")
def eval_(bundle: Path, data: str, reference: Path | None, device: str, seed: int, *, as_json: bool) -> None:
    """Measure BUNDLE's accuracy again, on data of yours."""
    with progress_bars(quiet=as_json) as progress:
        measured = evaluate_bundle(bundle, data=data, reference=reference, device=device, seed=seed, progress=progress)
    _show(measured, as_json=as_json)


def _show(measured: Sequence[Measurement], *, as_json: bool) -> None:
    from pydantic import TypeAdapter

    if as_json:
        click.echo(json.dumps(TypeAdapter(list[Measurement]).dump_python(list(measured), mode="json"), indent=2))
        return
    from edgeopt.report.format import conditions_text, figure, label

    console = Console(highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    for _ in range(3):
        table.add_column(overflow="fold")
    for row in measured:
        table.add_row(label(row.name), figure(row), conditions_text(row, ("batch", "threads")))
    console.print(table)
    first = next((row for row in measured if row.device), None)
    if first is not None:
        where = conditions_text(first, ("runtime", "data", "split"))
        console.print(
            f"\n[low, high]: 95 % interval. Measured on {first.device}" + (f"; {where}." if where else "."),
            markup=False,
        )
