"""What ``edgeopt compile --dry-run`` prints."""

import json
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgeopt.pipeline.plan import Plan
from edgeopt.report.terminal import bullet, indented, key_values, section

__all__ = ["show_plan"]


def show_plan(plan: Plan, output: Path, *, as_json: bool) -> None:
    """Print the checked plan: candidates, steps, what will be measured where, and where the bundle goes."""
    if as_json:
        click.echo(json.dumps(plan.to_json() | {"output": str(output)}, indent=2))
        return
    console = Console(highlight=False)
    console.print(Text.assemble((plan.target.name, "bold"), f": {plan.target.title}"))
    measured = "on this machine" if plan.measured_here else "accuracy on this machine; latency and memory nowhere"
    recipe = plan.recipe.name + (f". {plan.recipe_reason}" if plan.recipe_reason else "")
    rows = [
        ("recipe", recipe),
        ("objective", plan.recipe.objective),
        ("limits", _limits(plan)),
        ("measured", f"{measured}. {plan.measured_reason}"),
        ("bundle", f"{output} (replaces the one that is there)" if output.exists() else str(output)),
    ]
    console.print(key_values(rows))
    console.print(section("Candidates"))
    console.print(_candidates(plan))
    console.print(section("Steps, until a rung meets the limits" if plan.rungs else "Steps"))
    for number, step in enumerate(plan.steps(), 1):
        console.print(bullet(step, mark=f"{number}."))
    if plan.left_out:
        console.print(section("Left out"))
        for line in plan.left_out:
            console.print(bullet(line))
    console.print()
    console.print(indented("Nothing was done yet: run it without --dry-run.", "dim"))


def _limits(plan: Plan) -> str:
    given = plan.recipe.limits.model_dump(exclude_none=True)
    given |= {f"drop of {metric}": most for metric, most in given.pop("drops", {}).items()}
    return ", ".join(f"{name} {value:g}" for name, value in given.items()) or "none"


def _candidates(plan: Plan) -> Table:
    gap = 1 if any(one.stage for one in plan.candidates) else 2  # their ids are long
    table = Table(box=None, padding=(0, gap, 0, 0), pad_edge=False, header_style="dim")
    for title in ("", "runtime", "version here", "precision", "dialect", "role"):
        table.add_column(title, overflow="fold", no_wrap=not title)
    for one in plan.candidates:
        here = one.availability.version or "on its device"
        table.add_row(f"  {one.id}", one.rules.name, here, one.precision, one.dialect, one.role)
    return table
