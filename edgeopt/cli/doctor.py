"""``edgeopt doctor``: what is here, and how to get what is not."""

import json
import platform
from dataclasses import asdict

import click
from rich.console import Console
from rich.table import Table

from edgeopt.version import __version__

__all__ = ["doctor"]


@click.command(epilog="Example: edgeopt doctor --json")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(*, as_json: bool) -> None:
    """Say which runtimes, versions, ISA features and devices are here, and how to get the others."""
    from edgeopt.backends.doctor import survey
    from edgeopt.targets.host import detect_host, stands_for
    from edgeopt.targets.load import list_targets

    host, found = detect_host(), survey()
    fitting = [target.name for target in list_targets() if stands_for(target, host)[0]]
    if as_json:
        runtimes = {name: asdict(availability) for name, availability in found}
        document = {"edgeopt": __version__, "python": platform.python_version(), "host": asdict(host)}
        click.echo(json.dumps(document | {"runtimes": runtimes, "targets_measured_here": fitting}, indent=2))
        return
    console = Console(highlight=False)
    console.print(f"edgeopt {__version__}, Python {platform.python_version()}, {platform.platform()}")
    console.print(f"CPU: {host.cpu} ({host.arch}), {host.cores} cores, {host.memory_mib} MiB")
    console.print(f"ISA: {', '.join(host.features)}\n", soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for heading in ("runtime", "here", "what it brings", "how to get it"):
        table.add_column(heading, overflow="fold")
    for name, availability in found:
        here = availability.version or "no"
        detail = f"{here} {availability.detail}".strip()
        table.add_row(name, detail, availability.brings, "" if availability.version else availability.how_to_get)
    console.print(table)
    console.print(f"\nTargets that can be measured on this machine: {', '.join(fitting) or 'none'}")
