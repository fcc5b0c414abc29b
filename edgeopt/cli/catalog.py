"""``edgeopt targets`` and ``edgeopt recipes``: what can be chosen from."""

import json

import click
import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["recipes", "targets"]

_SHOWN_ELSEWHERE = {"schema_version", "name", "title", "description", "sources", "notes"}


class _DefaultGroup(click.Group):
    """A group that lists when it is called without a command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """An option without a command is one of ``list``; the group itself has only help."""
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_DefaultGroup, epilog="Example: edgeopt targets show jetson")
def targets() -> None:
    """List the devices edgeopt compiles for, or explain one."""


@targets.command("list", epilog="Example: edgeopt targets list --json")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_(*, as_json: bool = False) -> None:
    """List all targets."""
    from edgeopt.targets.load import list_targets

    known = list_targets()
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
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(name: str, *, as_json: bool) -> None:
    """Explain target NAME: what it can do, how its int8 must be laid out, where each fact comes from."""
    from edgeopt.targets.host import detect_host, stands_for
    from edgeopt.targets.load import find_target

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
    if target.notes:
        console.print(section("Notes"))
        for note in target.notes:
            console.print(bullet(plain(note)))
    console.print(section("Where this comes from"))
    for source in target.sources:
        console.print(bullet(plain(f"{source.fact.rstrip('.')}. ({source.source})")))


@click.group(cls=_DefaultGroup, epilog="Example: edgeopt recipes show int8-ptq")
def recipes() -> None:
    """List the shipped recipes, or print one."""


@recipes.command("list", epilog="Example: edgeopt recipes list --json")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_recipes_(*, as_json: bool = False) -> None:
    """List all shipped recipes."""
    from edgeopt.recipes.load import list_recipes

    known = list_recipes()
    if as_json:
        click.echo(json.dumps([recipe.model_dump(mode="json") for recipe in known], indent=2))
        return
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for recipe in known:
        table.add_row(recipe.name, recipe.description)
    console = Console(highlight=False)
    console.print(table)
    console.print("\n`edgeopt recipes show NAME > mine.yaml` is where one of your own starts.", markup=False)


@recipes.command("show", epilog="Example: edgeopt recipes show int8-ptq > mine.yaml")
@click.argument("name")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one value.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show_recipe(name: str, overrides: tuple[str, ...], *, as_json: bool) -> None:
    """Print recipe NAME with every value filled in; a file of yours can start from it."""
    from edgeopt.recipes.load import load_recipe

    recipe = load_recipe(name, overrides)
    if as_json:
        click.echo(recipe.model_dump_json(indent=2))
        return
    click.echo(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True).rstrip())
