"""How much of each net really runs in int8, as the runtimes themselves tell it, and what is outside.

    python benchmarks/zoo/train.py build/zoo
    python examples/efficientnet_lite0/prepare.py build/zoo/lite0
    python benchmarks/coverage.py build/zoo --json build/coverage.json

Per net one ``edgeopt.compile`` for each target. Prints a table in Markdown, and every operation outside of int8 with its
cause. Nothing here is timed: the figures do not depend on how busy the machine is. Exit code 1 where a net has less than
``--at-least`` percent of its multiply-accumulates in int8 on a runtime that tells.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo_folder import Net, add_arguments, find_nets, use_own_cache

import edgeopt
from edgeopt.bundle.coverage import CoverageSection
from edgeopt.bundle.document import Candidate
from edgeopt.core.errors import EdgeOptError
from edgeopt.core.measurement import Measurement

HEAD = ("net", "engine", "MACs in int8, %", "planned, %", "operations in int8", "read from")
FEW_TIMINGS = ("measure.latency_samples=20", "measure.warmup=1", "measure.warmup_within_pct=null")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One net on one runtime."""

    net: str
    candidate: Candidate

    @property
    def macs(self) -> Measurement:
        """The share of its multiply-accumulates."""
        figure = self.candidate.figure("int8_macs_pct")
        if figure is None:
            sys.exit(f"{self.net}: {self.candidate.id} has no int8_macs_pct")
        return figure

    @property
    def cells(self) -> tuple[str, ...]:
        """In the order of ``HEAD``."""
        section, figure = self.candidate.coverage, self.macs
        planned = figure.conditions.get("planned_pct")
        return (
            self.net,
            f"{self.candidate.runtime} {self.candidate.runtime_version} ({self.candidate.dialect})",
            "–" if figure.value is None else f"{figure.value:.2f}",
            f"{planned:.2f}" if isinstance(planned, float) else "–",
            "–" if section is None else f"{len(section.ops) - len(section.outside)} of {len(section.ops)}",
            str(figure.conditions.get("how", figure.reason)) + (" (stand-in)" if section and section.proxy else ""),
        )


def main() -> int:
    parser = argparse.ArgumentParser(description="Print how much of each net runs in int8.")
    add_arguments(parser)
    parser.add_argument("--targets", nargs="+", metavar="NAME", default=["local"], help="default: local")
    parser.add_argument("--recipe", metavar="NAME", default="int8-ptq", help="default: int8-ptq")
    parser.add_argument("--at-least", type=float, default=95.0, metavar="PERCENT", help="default: 95")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep every operation here")
    arguments = parser.parse_args()
    use_own_cache(arguments.zoo)
    rows: list[Row] = []
    failures: list[str] = []
    for net in find_nets(arguments.zoo, arguments.nets):
        for target in arguments.targets:
            try:
                rows += compiled(net, target, arguments.recipe, arguments.zoo / ".bundles")
            except EdgeOptError as error:
                failures.append(f"{net.name}, {target}: {error}")
    print_table(rows)
    low = [row for row in rows if row.macs.value is not None and row.macs.value < arguments.at_least]
    for text in (*failures, *(f"{r.net}, {r.candidate.id}: below {arguments.at_least:g} %" for r in low)):
        print(f"\n{text}")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps([raw(row) for row in rows], indent=1), encoding="utf-8")
    return 1 if failures or low else 0


def compiled(net: Net, target: str, recipe: str, folder: Path) -> list[Row]:
    """The int8 engines of one net."""
    bundle = edgeopt.compile(
        net.model,
        target=target,
        data=str(net.data),
        recipe=recipe,
        overrides=FEW_TIMINGS,
        output=folder / f"{net.name}-{target}-coverage",
    )
    print(f"{net.name}, {target}: compiled", file=sys.stderr)
    return [Row(net=net.name, candidate=c) for c in bundle.report.candidates if c.role == "candidate"]


def print_table(rows: list[Row]) -> None:
    """The table, and below it what is outside."""
    print(f"| {' | '.join(HEAD)} |\n|{' --- |' * len(HEAD)}")
    for row in rows:
        print(f"| {' | '.join(row.cells)} |")
    for row in rows:
        for line in outside(row.candidate.coverage):
            print(f"\n{row.net}, {row.candidate.runtime}: {line}")


def outside(section: CoverageSection | None) -> list[str]:
    """One line per operation outside of int8."""
    if section is None:
        return []
    return [
        f"{op.op} {op.name}, {section.share_pct(op) or 0:.2f} % of the MACs, runs in {op.runs_in or 'what is not told'}: "
        f"{op.cause} {op.fix}".rstrip()
        for op in section.outside
    ]


def raw(row: Row) -> dict[str, Any]:
    """Everything that was told, for machines."""
    section = row.candidate.coverage
    return {
        "net": row.net,
        "candidate": row.candidate.id,
        "dialect": row.candidate.dialect,
        "int8_macs_pct": row.macs.value,
        "conditions": dict(row.macs.conditions),
        "coverage": None if section is None else section.model_dump(mode="json"),
    }


if __name__ == "__main__":
    sys.exit(main())
