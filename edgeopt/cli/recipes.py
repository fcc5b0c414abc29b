"""``edgeopt recipes``: what can be chosen from."""

import json

import click
import yaml
from rich.console import Console
from rich.table import Table

from edgeopt.cli.groups import DefaultGroup

__all__ = ["recipes"]


@click.group(cls=DefaultGroup, epilog="Example: edgeopt recipes show int8-ptq")
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
