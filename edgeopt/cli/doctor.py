"""``edgeopt doctor``: what is here, and how to get what is not."""

import json
import platform
from dataclasses import asdict

import click
from rich.console import Console
from rich.table import Table

from edgeopt.version import __version__

__all__ = ["doctor"]

# What decides how fast int8 and float16 are; of the hundred others no runtime speaks.
_TELLING = (
    *(
        "avx",
        "avx2",
        "f16c",
        "fma",
        "avx512f",
        "avx512bw",
        "avx512_vnni",
        "avx_vnni",
        "avx512_bf16",
        "amx_int8",
        "amx_bf16",
    ),
    *("asimd", "asimddp", "i8mm", "fphp", "asimdhp", "bf16", "sve", "sve2"),
)


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
        document = {
            "edgeopt": __version__,
            "python": platform.python_version(),
            "host": host.as_json(),
        }
        click.echo(json.dumps(document | {"runtimes": runtimes, "targets_measured_here": fitting}, indent=2))
        return
    from edgeopt.report.terminal import bullet, indented, section

    console = Console(highlight=False)
    console.print(f"edgeopt {__version__}, Python {platform.python_version()}, {platform.platform()}")
    console.print(f"CPU: {host.cpu} ({host.arch}), {host.cores} cores, {host.memory_mib} MiB")
    counted = len(host.features)
    telling = [feature for feature in _TELLING if feature in host.features]
    console.print(f"ISA: {', '.join(telling) or 'none that matters here'} (of {counted} features; --json lists all)\n")
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("runtime", no_wrap=True)
    table.add_column("here", no_wrap=True)
    table.add_column("what it brings", overflow="fold")
    for name, availability in found:
        table.add_row(name, availability.version or "no", availability.brings)
    console.print(table)
    missing = [(name, a) for name, a in found if a.version is None]
    if missing:
        console.print(section("How to get what is not here"))
    for name, availability in missing:
        detail = f" ({availability.detail})" if availability.detail else ""
        console.print(bullet(f"{name}: {availability.how_to_get}{detail}"))
    console.print(section("Targets that can be measured on this machine"))
    console.print(indented(", ".join(fitting) or "none"))
