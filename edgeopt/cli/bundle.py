"""``edgeopt inspect`` and ``edgeopt verify``: what a bundle is, and whether it still is that."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from edgeopt.cli.device_options import chosen_device, device_options
from edgeopt.core.events import ignore_progress

if TYPE_CHECKING:
    from edgeopt.pipeline.verify import VerifyResult

__all__ = ["inspect", "verify"]


@click.command(epilog="Example: edgeopt inspect dist/model-local --json")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--coverage", is_flag=True, help="Only what really runs in int8, op by op, and why the rest does not.")
@click.option("--json", "as_json", is_flag=True, help="Print the report (with --coverage that part) as JSON.")
def inspect(bundle: Path, *, coverage: bool, as_json: bool) -> None:
    """Show what BUNDLE holds and what it costs."""
    from edgeopt.bundle.layout import report_json
    from edgeopt.bundle.load import load_bundle

    loaded = load_bundle(bundle)
    if as_json:
        from edgeopt.report.coverage import coverage_json

        click.echo((coverage_json if coverage else report_json)(loaded.report), nl=False)
        return
    from edgeopt.report.inspect import render_bundle, render_bundle_coverage

    (render_bundle_coverage if coverage else render_bundle)(loaded, Console(highlight=False))


@click.command(epilog="Example: edgeopt verify dist/model-local")
@click.argument("bundle", type=click.Path(path_type=Path))
@device_options()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify(bundle: Path, device: str, devices_file: Path | None, *, accept_new_host_key: bool, as_json: bool) -> int:
    """Check every hash of BUNDLE and re-run its reference inputs; exit 1 if anything differs."""
    from edgeopt.pipeline.verify import verify_bundle

    if device == "local":
        result = verify_bundle(bundle)
    else:
        with chosen_device(
            device, ignore_progress, accept_new_host_key=accept_new_host_key, devices_file=devices_file
        ) as where:
            result = verify_bundle(bundle, device=where)
    if as_json:
        click.echo(_json(result))
    else:
        _show(result, bundle)
    return 0 if result.ok else 1


def _json(result: "VerifyResult") -> str:
    """NaN is no JSON: a difference that is not a number is null."""
    document = asdict(result) | {"ok": result.ok, "outputs_ok": result.outputs_ok}
    document["rows"] = [
        _finite(row | {"passed": one.passed}) for row, one in zip(document["rows"], result.rows, strict=True)
    ]
    return json.dumps(_finite(document), indent=2, allow_nan=False, default=str)


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def _show(result: "VerifyResult", bundle: Path) -> None:
    """One line for the files, one for the outputs, and every problem; what was not run is as loud as a failure."""
    from rich.table import Table
    from rich.text import Text

    from edgeopt.report.format import plain
    from edgeopt.report.terminal import bullet

    console = Console(highlight=False)
    styles = {"PASS": "bold green", "FAIL": "bold red", "NOT RUN": "bold yellow"}

    def line(status: str, text: str) -> None:
        grid = Table.grid(padding=(0, 2))
        grid.add_row(Text(f"{status:<7}", style=styles[status]), Text(plain(text)))
        console.print(grid)

    console.print(Text(plain(str(bundle)), style="bold"), soft_wrap=True)
    if result.files_ok:
        line("PASS", f"files: all {result.files} are as they were written")
    else:
        line("FAIL", f"files: {len(result.problems)} of {result.files} are not as they were written")
        for problem in result.problems:
            console.print(bullet(plain(str(problem))))
    if result.outputs == "not_run":
        line("NOT RUN", f"outputs: {result.reason}")
        console.print(Text("The files were checked, the outputs were NOT.", style=styles["NOT RUN"]))
        return
    words = f"outputs: {result.samples} reference samples, tolerance {result.tolerance}"
    line("PASS" if result.outputs_ok else "FAIL", words)
    for row in result.rows:
        changed = "" if row.changed_argmax is None else f", {row.changed_argmax} changed predictions"
        mark = "" if row.passed else "OUTSIDE: "
        console.print(
            bullet(plain(f"{mark}{row.name}: largest difference {row.max_abs:.3g}, allowed {row.allowed:.3g}{changed}"))
        )
