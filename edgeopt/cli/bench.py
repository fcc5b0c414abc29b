"""``edgeopt bench`` and ``edgeopt eval``: measure a bundle again."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from edgeopt.cli.device_options import chosen_device, device_options
from edgeopt.cli.progress import progress_bars
from edgeopt.core.events import ProgressListener
from edgeopt.core.measurement import Measurement
from edgeopt.pipeline.remeasure import bench_bundle, evaluate_bundle

if TYPE_CHECKING:
    from edgeopt.devices.base import Device

__all__ = ["bench", "eval_"]


@click.command(epilog="Example: edgeopt bench dist/model-local --batch 1 --batch 8 --threads 2")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--batch", "batches", type=click.IntRange(min=1), multiple=True, help="A batch size for throughput; repeatable."
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads of the runtime.  [default: the recipe's]")
@click.option("--samples", type=click.IntRange(min=10), help="Timed inferences.  [default: the recipe's]")
@device_options(fleets=True)
@click.option("--json", "as_json", is_flag=True, help="Print the measurements as JSON.")
def bench(
    bundle: Path,
    batches: Sequence[int],
    threads: int | None,
    samples: int | None,
    device: str,
    devices_file: Path | None,
    *,
    accept_new_host_key: bool,
    as_json: bool,
) -> int:
    """Measure BUNDLE's latency, throughput, cold start and memory again, in a fresh process."""

    def work(where: "Device", progress: ProgressListener) -> tuple[Measurement, ...]:
        return bench_bundle(
            bundle, device=where, batches=tuple(batches), threads=threads, samples=samples, progress=progress
        )

    with progress_bars(quiet=as_json) as progress:
        if device.startswith("fleet:"):
            from edgeopt.cli.fleet import on_each, show_fleet
            from edgeopt.devices.fleet import members

            rows = on_each(
                members(device, devices_file),
                work,
                accept_new_host_key=accept_new_host_key,
                devices_file=devices_file,
                progress=progress,
            )
        else:
            with chosen_device(
                device, progress, accept_new_host_key=accept_new_host_key, devices_file=devices_file
            ) as where:
                measured = work(where, progress)
    if device.startswith("fleet:"):
        return show_fleet(rows, as_json=as_json)
    _show(measured, as_json=as_json)
    return 0


@click.command("eval", epilog="Example: edgeopt eval dist/model-local --data field-photos.yaml")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("-d", "--data", required=True, help="As for compile; its test split is used.")
@click.option(
    "--reference", type=click.Path(path_type=Path), help="A bundle (or ONNX file) in FP32, for the paired drop."
)
@device_options()
@click.option("--seed", type=int, default=0, show_default=True, help="Of the splits.")
@click.option("--json", "as_json", is_flag=True, help="Print the measurements as JSON.")
def eval_(
    bundle: Path,
    data: str,
    reference: Path | None,
    device: str,
    devices_file: Path | None,
    seed: int,
    *,
    accept_new_host_key: bool,
    as_json: bool,
) -> None:
    """Measure BUNDLE's accuracy again, on data of yours."""
    with (
        progress_bars(quiet=as_json) as progress,
        chosen_device(device, progress, accept_new_host_key=accept_new_host_key, devices_file=devices_file) as where,
    ):
        measured = evaluate_bundle(bundle, data=data, reference=reference, device=where, seed=seed, progress=progress)
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
