"""``edgeopt targets`` and ``edgeopt recipes``: what can be chosen from."""

import json

import click
import yaml
from rich.console import Console
from rich.table import Table

__all__ = ["recipes", "targets"]


class _DefaultGroup(click.Group):
    """A group that lists when it is called without a command."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the named command, or ``list``."""
        if not ctx.args and not ctx._protected_args:  # noqa: SLF001 - click has no public name for it
            return ctx.invoke(self.commands["list"])
        return super().invoke(ctx)


@click.group(cls=_DefaultGroup, invoke_without_command=True, epilog="Example: edgeopt targets show jetson")
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
    table = Table(box=None, pad_edge=False)
    for heading in ("target", "aliases", "what it is", "runtimes", "precisions"):
        table.add_column(heading, overflow="fold")
    for target in known:
        runtimes = ", ".join(rules.name for rules in target.runtimes)
        table.add_row(target.name, ", ".join(target.aliases), target.title, runtimes, ", ".join(target.precisions))
    Console(highlight=False).print(table)


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
    console = Console(highlight=False)
    console.print(f"[bold]{target.name}[/bold]: {target.title}")
    if target.description:
        console.print(target.description.strip())
    console.print(f"Measured on this machine: {'yes' if here else 'no'}; {reason}\n")
    body = target.model_dump(mode="json", exclude={"name", "title", "description", "sources"}, exclude_defaults=True)
    console.print(yaml.safe_dump(body, sort_keys=False, allow_unicode=True).rstrip(), markup=False)
    console.print("\nSources:")
    for source in target.sources:
        console.print(f"  {source.fact}: {source.source}", markup=False)


@click.group(cls=_DefaultGroup, invoke_without_command=True, epilog="Example: edgeopt recipes show int8-ptq")
def recipes() -> None:
    """List the shipped recipes, or print one."""


@recipes.command("list", epilog="Example: edgeopt recipes list")
def list_recipes_() -> None:
    """List all shipped recipes."""
    from edgeopt.recipes.load import list_recipes

    for recipe in list_recipes():
        click.echo(f"{recipe.name:<20} {recipe.description}")


@recipes.command("show", epilog="Example: edgeopt recipes show int8-ptq > mine.yaml")
@click.argument("name")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override one value.")
def show_recipe(name: str, overrides: tuple[str, ...]) -> None:
    """Print recipe NAME with every value filled in; a file of yours can start from it."""
    from edgeopt.recipes.load import load_recipe

    recipe = load_recipe(name, overrides)
    click.echo(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True).rstrip())
