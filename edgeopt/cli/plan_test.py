"""``edgeopt plan-test``: how many samples a gate needs, before it is trusted."""

import json
import re
from pathlib import Path
from typing import Any

import click

__all__ = ["plan_test"]


class _Points(click.ParamType[float]):
    """Percentage points, as ``1pp``, ``1%`` or the share ``0.01``."""

    name = "points"
    _form = re.compile(r"\s*([+-]?\d*\.?\d+(?:[eE][+-]?\d+)?)\s*(pp|%)?\s*")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """To a share."""
        match = self._form.fullmatch(str(value))
        if match is None:
            self.fail(f"{value!r} is no number of percentage points; write 1pp, 1% or 0.01.", param, ctx)
        number = float(match[1])
        if match[2] is None and abs(number) >= 1:
            self.fail(f"{value!r} has no unit; write {match[1]}pp for percentage points.", param, ctx)
        return number / 100 if match[2] else number


@click.command("plan-test", epilog="Example: edgeopt plan-test dist/model-local --max-drop 1pp --power 0.9")
@click.argument("bundle", type=click.Path(path_type=Path), required=False)
@click.option("--max-drop", type=_Points(), required=True, help="The gate's limit: 1pp, 1% or 0.01.")
@click.option("--power", type=float, default=0.9, show_default=True, help="How often it is to come to its verdict.")
@click.option(
    "--expect", type=_Points(), default="0pp", show_default=True, help="True drop of a model that is to pass."
)
@click.option(
    "--discordance",
    type=_Points(),
    help="Share of samples on which only one of FP32 and candidate is right.  [default: BUNDLE's, else a range]",
)
@click.option("--samples", type=click.IntRange(min=1), help="Of the test split at hand.  [default: BUNDLE's]")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
def plan_test(
    bundle: Path | None,
    max_drop: float,
    power: float,
    expect: float,
    discordance: float | None,
    samples: int | None,
    *,
    as_json: bool,
) -> None:
    """Say how many test samples a gate on the accuracy drop needs, and what BUNDLE's test split can tell."""
    from edgeopt.bundle.layout import REPORT_JSON, read_report
    from edgeopt.gate.plan import TestPlan, observed
    from edgeopt.gate.plan import plan_test as plan_gate

    assumed = ""
    if bundle is not None and (discordance is None or samples is None):
        seen = observed(read_report(bundle / REPORT_JSON))
        if discordance is None:
            discordance, assumed = seen.discordance, f"{seen.candidate} in {bundle}"
        samples = seen.samples if samples is None else samples
    plan = plan_gate(
        max_drop=max_drop,
        power=power,
        expected_drop=expect,
        discordance=discordance,
        samples=samples,
        assumed=assumed,
    )
    if as_json:
        from pydantic import TypeAdapter

        click.echo(json.dumps(TypeAdapter(TestPlan).dump_python(plan, mode="json"), indent=2))
        return
    from edgeopt.cli.plan_table import print_plan

    print_plan(plan)
