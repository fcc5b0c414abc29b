"""A test plan in the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from edgeopt.gate.plan import TestPlan, TestPlanRow

__all__ = ["print_plan"]


def print_plan(plan: TestPlan, console: Console | None = None) -> None:
    """A table with one row per discordance, and what the samples at hand can tell, in words."""
    console = console or Console(highlight=False)
    console.print(
        f"A gate at a drop of {plan.max_drop_pp:g} pp ({plan.level:.0%} interval, paired). It shall PASS a model whose true "
        f"drop is {plan.expected_drop_pp:g} pp, and FAIL one with {2 * plan.max_drop_pp:g} pp, each with probability "
        f"{plan.power:g}.\n",
        markup=False,
    )
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for head in ("samples that differ", "to PASS", "to FAIL", "samples needed"):
        table.add_column(head, justify="right")
    for row in plan.rows:
        table.add_row(
            f"{row.discordance_pp:.3g} %", _count(row.samples_to_pass), _count(row.samples_to_fail), _count(row.samples)
        )
    console.print(table)
    console.print(
        f"\nSamples that differ: exactly one of FP32 and candidate is right on them ({plan.assumed}).", markup=False
    )
    if plan.samples is not None:
        for row in plan.rows:
            console.print(_at_hand(plan, row, several=len(plan.rows) > 1), markup=False)


def _at_hand(plan: TestPlan, row: TestPlanRow, *, several: bool) -> str:
    where = f", where {row.discordance_pp:.3g} % differ" if several else ""
    detectable = (
        f"the smallest drop that FAILs with probability {plan.power:g} is {row.detectable_drop_pp:.2f} pp"
        if row.detectable_drop_pp is not None
        else "no drop would FAIL"
    )
    holdable = (
        f"the tightest limit that it would PASS is {row.holdable_limit_pp:.2f} pp"
        if row.holdable_limit_pp is not None
        else "it would PASS no limit"
    )
    return (
        f"With the {plan.samples:,} samples at hand{where}: a model that is to pass does so with probability "
        f"{row.pass_power or 0.0:.2f}, one with twice the limit FAILs with {row.fail_power or 0.0:.2f}; {detectable}, {holdable}."
    )


def _count(number: int | None) -> str:
    return "> 2,000,000" if number is None else f"{number:,}"
