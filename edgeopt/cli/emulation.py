"""``edgeopt devices setup qemu``, and the list of what can be emulated."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from edgeopt.cli.progress import progress_bars

if TYPE_CHECKING:
    from edgeopt.devices.qemu.listing import EmulatedRow

__all__ = ["setup", "show_emulated"]

_EXAMPLES = """\b
Examples:
  edgeopt devices setup qemu
  edgeopt eval dist/model-local --data digits --device qemu:cortex-a53
  edgeopt devices setup qemu --remove
"""


@click.group(epilog="Example: edgeopt devices setup qemu")
def setup() -> None:
    """Get what a kind of device needs before it can be used."""


@setup.command("qemu", epilog=_EXAMPLES)
@click.option(
    "--arch",
    type=click.Choice(["aarch64", "x86_64"]),
    default="aarch64",
    show_default=True,
    help="Of the CPUs that are to be emulated.",
)
@click.option("--remove", "removing", is_flag=True, help="Delete it again.")
def qemu(arch: str, *, removing: bool) -> None:
    """Get the other architecture's Python, C libraries and runtimes, for numbers under emulation.

    Python and libraries come from Debian's or Ubuntu's packages, NumPy and the runtimes as wheels in the versions that
    are installed here. All of it goes into one folder (EDGEOPT_DATA_DIR, else the user's data folder), needs no root, and
    is fetched once. QEMU itself comes from the system: apt-get install qemu-user.
    """
    from edgeopt.devices.qemu import setup as emulation
    from edgeopt.devices.qemu.device import qemu_version
    from edgeopt.devices.qemu.store import host_arch, store_folder

    folder = store_folder(arch)
    if removing:
        freed = emulation.remove(arch)
        click.echo(f"Removed: {folder}, {freed / 2**20:.0f} MiB" if freed else f"There was nothing in {folder}.")
        return
    if arch == host_arch() == "x86_64":
        version = qemu_version(f"qemu-{arch}")[0]
        click.echo(f"Nothing to fetch: x86 CPUs run this machine's own Python under qemu-{arch} {version}.")
        return
    there = emulation.up_to_date(arch) is not None
    with progress_bars() as progress:
        record = emulation.setup(arch, progress)
    found = ", ".join(f"{name} {version}" for name, version in record.versions.items())
    click.echo(f"{'Up to date' if there else 'Set up'}: {folder}")
    click.echo(f"Python {record.python} of {record.distribution}; {found}")
    for name, why in record.left_out.items():
        click.echo(f"Warning: without {name}: {why}", err=True)


def show_emulated(rows: "Sequence[EmulatedRow]") -> None:
    """One row per CPU."""
    from edgeopt.report.terminal import section

    console = Console(highlight=False)
    console.print(section("Emulated CPUs, for numerics only"))
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    for _ in range(3):
        table.add_column(overflow="fold")
    for row in rows:
        table.add_row(row.name, row.title, row.state)
    console.print(table)
