"""``edgeopt bench`` and ``edgeopt eval``: measure a bundle again."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgeopt.cli.device_options import chosen_device, device_options
from edgeopt.cli.progress import progress_bars
from edgeopt.cli.quantities import duration_s, share
from edgeopt.core.errors import EdgeOptError
from edgeopt.core.events import ProgressListener
from edgeopt.core.measurement import Measurement
from edgeopt.pipeline.remeasure import bench_bundle, evaluate_bundle
from edgeopt.recipes.settings import Scenario

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from edgeopt.devices.base import Device

__all__ = ["bench", "eval_"]

_EVAL_EXAMPLES = """\b
Examples:
  edgeopt eval dist/model-local --data field-photos.yaml
  edgeopt eval dist/model-local --data digits --device qemu:cortex-a53 --device qemu:max -o isa.md
"""
_SCENARIOS: tuple[Scenario, ...] = ("single-stream", "multi-stream", "offline", "server")


@click.command(epilog="Example: edgeopt bench dist/model-local --scenario server --p99 20 --precision 5%")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--batch", "batches", type=click.IntRange(min=1), multiple=True, help="A batch size for throughput; repeatable."
)
@click.option("--threads", type=click.IntRange(min=1), help="Threads of the runtime.  [default: the recipe's]")
@click.option("--samples", type=click.IntRange(min=10), help="Timed inferences.  [default: the recipe's]")
@click.option(
    "--scenario",
    "scenarios",
    type=click.Choice([*_SCENARIOS, "all"]),
    multiple=True,
    help="How it is asked, in MLPerf's words; repeatable.  [default: the recipe's]",
)
@click.option("--qps", type=click.FloatRange(min=0, min_open=True), help="Server: queries per second.")
@click.option(
    "--p99",
    "p99_ms",
    metavar="MS",
    type=click.FloatRange(min=0, min_open=True),
    help="Server: find the highest rate whose p99 is within this.",
)
@click.option(
    "--precision", metavar="SHARE", help="Measure until a ratio is told to this, e.g. 5%; with the noise floor."
)
@click.option("--roofline", is_flag=True, help="Each layer against this machine's measured peaks, instead of all else.")
@click.option("--soak", metavar="TIME", help="Run for so long without a pause, e.g. 30m; Ctrl-C yields what there is.")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Of a soak or roofline: FILE.svg or FILE.html.",
)
@click.option(
    "--screenshot",
    metavar="FILE.png",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With --device browser: a picture of its page, with the latencies and the outputs of a sample.",
)
@device_options(fleets=True, numerics=False)
@click.option("--json", "as_json", is_flag=True, help="Print the measurements as JSON.")
def bench(  # one parameter per option
    bundle: Path,
    batches: Sequence[int],
    threads: int | None,
    samples: int | None,
    scenarios: Sequence[str],
    qps: float | None,
    p99_ms: float | None,
    precision: str | None,
    soak: str | None,
    output: Path | None,
    screenshot: Path | None,
    device: str,
    devices_file: Path | None,
    *,
    roofline: bool,
    accept_new_host_key: bool,
    as_json: bool,
) -> int:
    """Measure BUNDLE's latency, throughput, cold start and memory again, in a fresh process."""
    _check_output(output, drawn=soak is not None or roofline)
    _check_screenshot(screenshot, device)
    fleet = device.startswith("fleet:")

    def chosen(progress: ProgressListener) -> "AbstractContextManager[Device]":
        return chosen_device(device, progress, accept_new_host_key=accept_new_host_key, devices_file=devices_file)

    beside = [qps, p99_ms, precision, samples, screenshot, *scenarios, *batches]
    if _is_of_its_own(soak=soak, roofline=roofline, others=fleet or any(value is not None for value in beside)):
        if soak is None:
            return _roofline(bundle, chosen, threads=threads, output=output, as_json=as_json)
        return _soak(bundle, duration_s(soak), chosen, threads=threads, output=output, as_json=as_json)
    asked = _asked(scenarios, qps=qps, p99_ms=p99_ms)

    def work(where: "Device", progress: ProgressListener) -> tuple[Measurement, ...]:
        return bench_bundle(
            bundle,
            device=where,
            batches=tuple(batches),
            threads=threads,
            samples=samples,
            scenarios=asked,
            qps=qps,
            p99_ms=p99_ms,
            precision=None if precision is None else share(precision),
            progress=progress,
        )

    with progress_bars(quiet=as_json) as progress:
        if fleet:
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
            with chosen(progress) as where:
                if screenshot is not None:
                    where.picture = screenshot  # type: ignore[attr-defined]  # the browser's
                measured = work(where, progress)
    if fleet:
        return show_fleet(rows, as_json=as_json)
    _show(measured, as_json=as_json)
    if any(row.conditions.get("warmup_converged") is False for row in measured):
        click.echo("Warning: the latency was not steady yet when the warm-up ended.", err=True)
    noisy = next((str(row.conditions["inconclusive"]) for row in measured if "inconclusive" in row.conditions), None)
    if noisy is not None:
        click.echo(f"INCONCLUSIVE: {noisy}.", err=True)
        return 5
    return 0


def _is_of_its_own(*, soak: str | None, roofline: bool, others: bool) -> bool:
    """Whether a measurement is asked for that stands alone; ``others``: whether anything else is asked for too.

    Raises:
        EdgeOptError: It does not stand alone.
    """
    if soak is None and not roofline:
        return False
    if others or (soak is not None and roofline):
        kind, option = ("roofline", "--roofline") if roofline else ("soak", "--soak")
        raise EdgeOptError(
            f"A {kind} is a measurement of its own, of one device.",
            fix=f"With {option}, give --threads, --device and -o alone.",
        )
    return True


def _check_output(output: Path | None, *, drawn: bool) -> None:
    if output is not None and (not drawn or output.suffix not in (".svg", ".html")):
        fix = "--soak 30m -o soak.html, or --roofline -o roofline.svg"
        raise EdgeOptError("Only a soak and a roofline are drawn, as SVG or HTML.", got=str(output), fix=fix)


def _roofline(
    bundle: Path,
    chosen: "Callable[[ProgressListener], AbstractContextManager[Device]]",
    *,
    threads: int | None,
    output: Path | None,
    as_json: bool,
) -> int:
    from edgeopt.pipeline.roofline import roofline_of_bundle
    from edgeopt.report.roofline import roofline_json, roofline_narrow, roofline_notes, roofline_page

    with progress_bars(quiet=as_json) as progress, chosen(progress) as where:
        found = roofline_of_bundle(bundle, device=where, threads=threads, progress=progress)
    if output is not None:
        output.write_text(roofline_page(found, bundle.name, html=output.suffix == ".html"), encoding="utf-8")
        click.echo(f"Plot: {output}", err=True)
    if as_json:
        click.echo(roofline_json(found), nl=False)
        return 0
    console = Console(highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    heads, rows = roofline_narrow(found)
    for index, head in enumerate(heads):
        table.add_column(head, justify="right" if index > 1 else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)
    for note in roofline_notes(found):
        console.print(Text(note))
    return 0


def _check_screenshot(screenshot: Path | None, device: str) -> None:
    if screenshot is None:
        return
    if device != "browser":
        raise EdgeOptError("Only a browser has a page to take a picture of.", got=device, fix="Add --device browser.")
    if screenshot.suffix != ".png" or not screenshot.absolute().parent.is_dir():
        raise EdgeOptError("A picture is a PNG file in a folder that exists.", got=str(screenshot))


def _asked(scenarios: Sequence[str], *, qps: float | None, p99_ms: float | None) -> tuple[Scenario, ...]:
    """The scenarios in their order; a rate or a bound asks for the server's."""
    if qps is not None and p99_ms is not None:
        raise EdgeOptError("A rate is either given or searched.", got="--qps and --p99", fix="Leave one of them out.")
    wanted = set(_SCENARIOS if "all" in scenarios else scenarios)
    wanted |= {"server"} if qps is not None or p99_ms is not None else set()
    return tuple(scenario for scenario in _SCENARIOS if scenario in wanted)


def _soak(
    bundle: Path,
    seconds: float,
    chosen: "Callable[[ProgressListener], AbstractContextManager[Device]]",
    *,
    threads: int | None,
    output: Path | None,
    as_json: bool,
) -> int:
    from edgeopt.pipeline.remeasure import soak_bundle
    from edgeopt.report.soak import page, soak_json

    with progress_bars(quiet=as_json) as progress, chosen(progress) as where:
        found = soak_bundle(bundle, seconds=seconds, device=where, threads=threads, progress=progress)
    if output is not None:
        output.write_text(page(found, bundle.name, html=output.suffix == ".html"), encoding="utf-8")
    if as_json:
        click.echo(soak_json(found), nl=False)
    else:
        _show(found.measurements, as_json=False)
    if output is not None:
        click.echo(f"Plot: {output}", err=True)
    if found.interrupted:
        click.echo(f"Ended early: {found.interrupted}. What is shown is what there was.", err=True)
    return 130 if found.interrupted == "interrupted" else 1 if found.interrupted else 0


@click.command("eval", epilog=_EVAL_EXAMPLES)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("-d", "--data", required=True, help="As for compile; its test split is used.")
@click.option(
    "--reference", type=click.Path(path_type=Path), help="A bundle (or ONNX file) in FP32, for the paired drop."
)
@device_options(several=True)
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    help="How many of the test split, its first.  [default: all; 64 where a CPU is emulated]",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the splits.")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The comparison of devices as FILE.md, FILE.html or FILE.json.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the measurements (or the comparison) as JSON.")
def eval_(
    bundle: Path,
    data: str,
    reference: Path | None,
    device: Sequence[str],
    devices_file: Path | None,
    samples: int | None,
    seed: int,
    output: Path | None,
    *,
    accept_new_host_key: bool,
    as_json: bool,
) -> int:
    """Measure BUNDLE's accuracy again, on data of yours.

    On several devices, or on an emulated CPU, it is a comparison with this machine: how many outputs differ, by how much,
    and what that does to the predictions. Exit code 1: one of the devices could not run it.
    """
    from edgeopt.cli.numerics import compares, show_comparison

    if compares(device, reference=reference, output=output):
        from edgeopt.pipeline.numerics import compare_bundle

        with progress_bars(quiet=as_json) as progress:
            section = compare_bundle(
                bundle,
                data=data,
                devices=device,
                samples=samples,
                seed=seed,
                accept_new_host_key=accept_new_host_key,
                devices_file=devices_file,
                progress=progress,
            )
        return show_comparison(section, output, as_json=as_json)
    with (
        progress_bars(quiet=as_json) as progress,
        chosen_device(device[0], progress, accept_new_host_key=accept_new_host_key, devices_file=devices_file) as where,
    ):
        measured = evaluate_bundle(
            bundle, data=data, reference=reference, device=where, samples=samples, seed=seed, progress=progress
        )
    _show(measured, as_json=as_json)
    return 0


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
        table.add_row(
            label(row.name), figure(row), conditions_text(row, ("batch", "threads", "qps", "samples_per_query"))
        )
    console.print(table)
    first = next((row for row in measured if row.device), None)
    if first is not None:
        where = conditions_text(first, ("runtime", "data", "split"))
        console.print(
            f"\n[low, high]: 95 % interval. Measured on {first.device}" + (f"; {where}." if where else "."),
            markup=False,
        )
