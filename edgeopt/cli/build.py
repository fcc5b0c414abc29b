"""``edgeopt build``: an engine that only its device can build, built there over SSH."""

from pathlib import Path

import click
from rich.console import Console

from edgeopt.cli.device_options import chosen_device, device_options
from edgeopt.cli.progress import progress_bars

__all__ = ["build"]


@click.command(epilog="Example: edgeopt build dist/model-jetson --device ssh://user@192.168.1.20")
@click.argument("bundle", type=click.Path(path_type=Path))
@device_options()
@click.option("--no-measure", is_flag=True, help="Build only.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def build(
    bundle: Path,
    device: str,
    devices_file: Path | None,
    *,
    accept_new_host_key: bool,
    no_measure: bool,
    as_json: bool,
) -> int:
    """Build BUNDLE's TensorRT engine on its device, bring it back into the bundle, and measure it there."""
    from edgeopt.bundle.layout import report_json
    from edgeopt.pipeline.build_there import build_bundle

    with (
        progress_bars(quiet=as_json) as progress,
        chosen_device(device, progress, accept_new_host_key=accept_new_host_key, devices_file=devices_file) as where,
    ):
        built = build_bundle(bundle, device=where, progress=progress, measure=not no_measure)
    if as_json:
        click.echo(report_json(built.report), nl=False)
    else:
        from edgeopt.report.terminal import render

        render(built.report, Console(highlight=False), built.directory)
    return 4 if built.report.verdict.status == "FAIL" else 0
