"""``edgeopt targets``: what can be compiled for, what differs between two, one for this machine."""

import json
from pathlib import Path

import click
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgeopt.cli.groups import DefaultGroup

__all__ = ["targets"]

_SHOWN_ELSEWHERE = {"schema_version", "name", "title", "description", "sources", "notes"}


@click.group(cls=DefaultGroup, epilog="Example: edgeopt targets show jetson")
def targets() -> None:
    """List the devices edgeopt compiles for, explain or compare them, or describe this machine as one."""


@targets.command("list", epilog="Example: edgeopt targets list --json")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(*, as_json: bool = False) -> None:
    """List all targets."""
    from edgeopt.targets.load import broken_catalogs, list_targets

    known = list_targets()
    for problem in broken_catalogs():
        click.echo(f"Warning: {problem}", err=True)
    if as_json:
        click.echo(json.dumps([target.model_dump(mode="json") for target in known], indent=2))
        return
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("target", no_wrap=True)
    table.add_column("what it is, and its aliases", overflow="fold")
    table.add_column("runtimes", overflow="fold")
    table.add_column("precisions", overflow="fold")
    for target in known:
        runtimes = ", ".join(rules.name for rules in target.runtimes)
        aliases = f" ({', '.join(target.aliases)})" if target.aliases else ""
        table.add_row(target.name, f"{target.title}{aliases}", runtimes, ", ".join(target.precisions))
    console = Console(highlight=False)
    console.print(table)
    console.print(
        "\n`edgeopt targets show NAME` explains one; a YAML file of your own can stand in its place.", markup=False
    )


@targets.command("show", epilog="Example: edgeopt targets show jetson")
@click.argument("name", metavar="NAME[@RELEASE]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(name: str, *, as_json: bool) -> None:
    """Explain target NAME: what it can do, how its int8 must be laid out, where each fact comes from.

    NAME@RELEASE is the target on one release of its system: jetson@jetpack-6.2.
    """
    from edgeopt.targets.host import detect_host, stands_for
    from edgeopt.targets.load import find_target
    from edgeopt.targets.releases import releases_of

    target = find_target(name)
    if as_json:
        click.echo(target.model_dump_json(indent=2))
        return
    here, reason = stands_for(target, detect_host())
    from edgeopt.report.format import plain
    from edgeopt.report.terminal import bullet, section

    console = Console(highlight=False)
    console.print(Text.assemble((plain(target.name), "bold"), f": {plain(target.title)}"))
    if target.description:
        console.print(Text(target.description.strip()))
    console.print(Text(f"Measured on this machine: {'yes' if here else 'no'}. {reason}\n"))
    body = target.model_dump(mode="json", exclude=_SHOWN_ELSEWHERE, exclude_defaults=True)
    text = yaml.safe_dump(body, sort_keys=False, allow_unicode=True, width=76, default_flow_style=None)
    console.print(Text(text.rstrip()), soft_wrap=True)
    if releases := releases_of(target):
        console.print(section("Releases, named as TARGET@RELEASE"))
        console.print(bullet(", ".join(releases)))
    if target.notes:
        console.print(section("Notes"))
        for note in target.notes:
            console.print(bullet(plain(note)))
    console.print(section("Where this comes from"))
    for source in target.sources:
        console.print(bullet(plain(f"{source.fact.rstrip('.')}. ({source.source})")))


@targets.command("diff", epilog="Example: edgeopt targets diff jetson@jetpack-6.2 jetson@jetpack-7.2")
@click.argument("a")
@click.argument("b")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def diff(a: str, b: str, *, as_json: bool) -> None:
    """Compare targets A and B field by field: names, NAME@RELEASE, or files of your own."""
    from edgeopt.targets.compare import compare_targets
    from edgeopt.targets.load import find_target

    found = compare_targets(find_target(a), find_target(b))
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2))
        return
    from edgeopt.report.format import plain
    from edgeopt.report.terminal import bullet, section

    console = Console(highlight=False)
    if not found.fields:
        console.print(Text(f"{plain(found.a)} and {plain(found.b)} describe the same device."))
        return
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("field", no_wrap=True)
    table.add_column(Text(plain(found.a)), overflow="fold")
    table.add_column(Text(plain(found.b)), overflow="fold")
    for one in found.fields:
        table.add_row(Text(plain(one.field)), Text(_cell(one.a)), Text(_cell(one.b)))
    console.print(table)
    for name, sources in ((found.a, found.only_a), (found.b, found.only_b)):
        if sources:
            console.print(section(plain(f"Only {name} says, and from where")))
        for source in sources:
            console.print(bullet(plain(f"{source.fact.rstrip('.')}. ({source.source})")))


def _cell(value: object) -> str:
    from edgeopt.report.format import plain

    if value is None:
        return "–"
    if isinstance(value, list):
        return plain(", ".join(map(str, value)))
    return plain(value if isinstance(value, str) else json.dumps(value))


@targets.command("new", epilog="Example: edgeopt targets new my-box --from local")
@click.argument("name")
@click.option(
    "--from",
    "source",
    required=True,
    metavar="WHERE",
    help="The machine to describe: local, the one that this is run on.",
)
@click.option(
    "-o",
    "--output",
    "path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The YAML file; none is written over.  [default: NAME.yaml]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the target as JSON.")
def new(name: str, source: str, path: Path | None, *, as_json: bool) -> None:
    """Write a target file that describes this machine, by measuring it.

    ISA, cores and memory are read; the peak of int8 and float32 matrix products, the rate of copies and the steps of
    channels in which convolutions get dearer are measured with ONNX Runtime on one thread, in some 15 seconds. Run it
    on a quiet machine. The file's sources hold the experiments.
    """
    from edgeopt.cli.progress import progress_bars
    from edgeopt.pipeline.new_target import new_target

    file = path or Path(f"{name}.yaml")
    with progress_bars(quiet=as_json) as progress:
        made = new_target(name, source=source, path=file, progress=progress)
    if as_json:
        click.echo(made.model_dump_json(indent=2))
        return
    console = Console(highlight=False)
    console.print(Text(f"Wrote {file}: {made.title}"))
    if (peaks := made.peaks) is not None:
        console.print(
            f"Peaks on {peaks.threads} thread: int8 {peaks.gops_int8:g} GOPS, float32 {peaks.gflops_fp32:g} GFLOPS, "
            f"{peaks.copy_gb_per_s:g} GB/s. Channels in multiples of {made.channel_multiple}."
        )
    console.print(Text(f"Use it: edgeopt compile MODEL --target {file}"))
