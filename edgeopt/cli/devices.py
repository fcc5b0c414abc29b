"""``edgeopt devices``: what ``devices.toml`` names, and what each device says of itself."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from edgeopt.cli.browser import browser
from edgeopt.cli.device_options import devices_file_option, new_host_key_option
from edgeopt.cli.emulation import setup, show_emulated
from edgeopt.core.errors import EdgeOptError

if TYPE_CHECKING:
    from edgeopt.devices.fleet import Devices

__all__ = ["devices"]


_EXAMPLES = """\b
Examples:
  edgeopt devices --check
  edgeopt devices setup qemu
  edgeopt devices setup browser
"""


@click.group(invoke_without_command=True, epilog=_EXAMPLES)
@click.option("--check", is_flag=True, help="Connect to each, and say what it is and which runtimes it has.")
@devices_file_option
@new_host_key_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def devices(
    context: click.Context, devices_file: Path | None, *, check: bool, accept_new_host_key: bool, as_json: bool
) -> int:
    """List the devices and fleets of devices.toml and the CPUs that can be emulated; with --check, connect to each.

    Exit code 1: a device could not be used.
    """
    if context.invoked_subcommand is not None:
        return 0
    from edgeopt.devices.fleet import find_address, read_devices
    from edgeopt.devices.qemu.listing import emulated_cpus

    listed = read_devices(devices_file)
    addresses = {name: find_address(name, devices_file).text for name in listed.device}
    found = _ask(listed, devices_file, accept_new_host_key=accept_new_host_key) if check else {}
    if as_json:
        rows = [{"name": name, "address": text, **found.get(name, {})} for name, text in addresses.items()]
        fleets = {name: list(fleet.devices) for name, fleet in listed.fleet.items()}
        cpus = [asdict(one) for one in emulated_cpus()]
        click.echo(json.dumps({"devices": rows, "fleets": fleets, "emulated": cpus}, indent=2))
    else:
        _show(listed, addresses, found)
        show_emulated(emulated_cpus())
    return 1 if any(row.get("error") for row in found.values()) else 0


devices.add_command(setup)
setup.add_command(browser)


def _ask(listed: "Devices", devices_file: Path | None, *, accept_new_host_key: bool) -> dict[str, dict[str, Any]]:
    from edgeopt.devices.registry import opened
    from edgeopt.devices.ssh.device import SshDevice
    from edgeopt.targets.host import stands_for
    from edgeopt.targets.load import list_targets

    targets = list_targets()

    def ask(name: str) -> dict[str, Any]:
        try:
            with opened(name, accept_new_host_key=accept_new_host_key, devices_file=devices_file) as device:
                info = device.info()
                if not isinstance(device, SshDevice):
                    return {"error": None, "info": info.model_dump(mode="json")}
                host = device.host()
                fits = [t.name for t in targets if not t.detected and stands_for(t, host)[0]]
                facts = {key: value for key, value in device.depot.facts().items() if value}
                return {
                    "error": None,
                    "info": info.model_dump(mode="json"),
                    "facts": facts,
                    "host": host.as_json(),
                    "stands_for": fits,
                }
        except EdgeOptError as error:
            return {"error": str(error)}

    with ThreadPoolExecutor(max_workers=max(1, len(listed.device))) as pool:
        return dict(zip(listed.device, pool.map(ask, listed.device), strict=True))


def _show(listed: "Devices", addresses: dict[str, str], found: dict[str, dict[str, Any]]) -> None:
    from edgeopt.report.terminal import bullet, section

    console = Console(highlight=False)
    if not addresses:
        console.print("No devices are named. Write them into devices.toml, e.g.:\n", markup=False)
        console.print('[device.nano1]\nurl = "ssh://user@192.168.1.20"', markup=False)
        return
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for title in ("device", "address", *(("CPU", "memory", "GPU", "runtimes") if found else ("description",))):
        table.add_column(title, overflow="fold")
    for name, address in addresses.items():
        row = found.get(name)
        if row is None:
            table.add_row(name, address, listed.device[name].description)
        elif row["error"]:
            table.add_row(name, address, "cannot be used", "", "", "")
        else:
            table.add_row(name, address, *_cells(row))
    console.print(table)
    _show_found(console, found)
    if listed.fleet:
        console.print(section("Fleets"))
        for name, fleet in listed.fleet.items():
            console.print(bullet(f"fleet:{name}: {', '.join(fleet.devices)}"))


def _cells(row: dict[str, Any]) -> tuple[str, str, str, str]:
    info, facts = row["info"], row["facts"]
    gpus = ", ".join(f"SM {number}" for number in row["host"]["compute_capabilities"])
    runtimes = ", ".join(f"{name} {version}" for name, version in facts["runtimes"].items() if version)
    cpu = f"{info['cpu']}, {info['cores']} × {info['arch']}"
    return cpu, f"{info['memory_mib']} MiB", gpus or "none", runtimes or "none"


def _told(row: dict[str, Any]) -> list[str]:
    facts = row["facts"]
    jetpack = f"JetPack {facts['jetpack']}" if facts.get("jetpack") else ""
    board = ", ".join(filter(None, (facts.get("model"), facts.get("tegra_release"), jetpack)))
    fits = ", ".join(row["stands_for"]) or "no target of the catalog (local describes it)"
    return [
        *([board] if board else []),
        f"{row['info']['system']}, Python {facts['python']}",
        f"ISA: {', '.join(row['info']['isa']) or 'baseline'}",
        f"may stand for: {fits}",
    ]


def _show_found(console: Console, found: dict[str, dict[str, Any]]) -> None:
    from edgeopt.report.terminal import bullet, section

    for name, row in found.items():
        if row["error"]:
            click.echo(f"Error: {name}: {row['error']}", err=True)
            continue
        console.print(section(name))
        for line in _told(row):
            console.print(bullet(line))
