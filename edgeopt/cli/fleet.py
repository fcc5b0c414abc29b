"""The same work on several devices at once: one that fails is told of, and does not end the others'."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeopt.core.errors import EdgeOptError
from edgeopt.core.events import ProgressListener, ignore_progress
from edgeopt.core.measurement import Measurement

if TYPE_CHECKING:
    from edgeopt.devices.base import Device

__all__ = ["OnDevice", "on_each", "show_fleet"]

_COLUMNS = ("latency_p50_ms", "latency_p99_ms", "throughput_per_s", "cold_start_ms", "peak_memory_mib")


@dataclass(frozen=True, slots=True, kw_only=True)
class OnDevice:
    """What came of the work on one device: measurements, or why there are none."""

    device: str
    measured: tuple[Measurement, ...] = ()
    error: str = ""


def on_each(
    names: Sequence[str],
    work: "Callable[[Device, ProgressListener], tuple[Measurement, ...]]",
    *,
    accept_new_host_key: bool,
    devices_file: Path | None,
    progress: ProgressListener = ignore_progress,
) -> list[OnDevice]:
    """Do ``work`` on every device, all at once. Errors of edgeopt's kind become a row; Ctrl-C ends all."""
    from edgeopt.devices.registry import open_device

    devices: list[tuple[str, Device]] = []
    rows: dict[str, OnDevice] = {}
    for name in names:
        try:
            devices.append(
                (name, open_device(name, accept_new_host_key=accept_new_host_key, devices_file=devices_file))
            )
        except EdgeOptError as error:
            rows[name] = OnDevice(device=name, error=str(error))
    pool = ThreadPoolExecutor(max_workers=max(1, len(devices)))

    def one(name: str, device: "Device") -> OnDevice:
        try:
            return OnDevice(device=name, measured=work(device, ignore_progress))
        except EdgeOptError as error:
            return OnDevice(device=name, error=str(error))

    try:
        from edgeopt.core.events import Progress

        waiting = [pool.submit(one, name, device) for name, device in devices]
        for done, future in enumerate(as_completed(waiting), start=1):
            row = future.result()
            rows[row.device] = row
            progress(Progress(stage="measure the fleet", done=done, total=len(waiting)))
    finally:
        for _, device in devices:  # first: whoever still works on one then fails instead of being waited for
            close = getattr(device, "close", None)
            if close is not None:
                close()
        pool.shutdown(wait=True, cancel_futures=True)
    return [rows[name] for name in names]


def show_fleet(rows: Sequence[OnDevice], *, as_json: bool) -> int:
    """One row per device; exit code 1 where one failed."""
    import json

    import click

    failed = [row for row in rows if row.error]
    if as_json:
        from pydantic import TypeAdapter

        dump = TypeAdapter(list[Measurement]).dump_python
        document: list[dict[str, Any]] = [
            {"device": row.device, "error": row.error or None, "measurements": dump(list(row.measured), mode="json")}
            for row in rows
        ]
        click.echo(json.dumps(document, indent=2))
        return 1 if failed else 0
    from rich.console import Console
    from rich.table import Table

    from edgeopt.report.format import figure, label

    console = Console(highlight=False)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("device")
    shown = [name for name in _COLUMNS if any(m.name == name for row in rows for m in row.measured)]
    if not shown:
        shown = list(dict.fromkeys(m.name for row in rows for m in row.measured))[:5]
    for name in shown:
        table.add_column(label(name), overflow="fold")
    for row in rows:
        figures = [next((m for m in row.measured if m.name == name), None) for name in shown]
        cells = ["failed" if row.error else "-" if m is None else figure(m) for m in figures]
        table.add_row(row.device, *cells)
    console.print(table)
    for row in rows:
        where = next((m.device for m in row.measured if m.device), None)
        if where:
            console.print(f"{row.device}: measured on {where}.", markup=False)
    for row in failed:
        click.echo(f"Error: {row.device}: {row.error}", err=True)
    return 1 if failed else 0
