"""How much of each net really runs in int8, as the runtimes themselves tell it, and what is outside.

    python benchmarks/quality.py build/zoo --recipes int8-ptq     # makes the bundles in build/zoo/.bundles
    python benchmarks/coverage.py build/zoo/.bundles/*-int8-ptq --targets local rtx-ada jetson-orin-nano

Each bundle's portable graph is written in the dialect of every runtime of each target and compiled there anew. Prints a
table in Markdown, and every operation outside of int8 with its cause. Nothing is timed: the figures do not depend on how
busy the machine is. Exit code 1 where a net has less than ``--at-least`` percent of its multiply-accumulates in int8.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeopt.backends.registry import BACKENDS
from edgeopt.bundle.load import Bundle, load_bundle
from edgeopt.core.coverage import Coverage
from edgeopt.core.errors import EdgeOptError
from edgeopt.graph.dialects import apply_dialect
from edgeopt.graph.int8_macs import int8_macs_pct
from edgeopt.pipeline.coverage import with_macs
from edgeopt.targets.load import find_target
from edgeopt.targets.schema import RuntimeRules, Target

HEAD = ("bundle", "target", "engine", "MACs in int8, %", "planned, %", "operations in int8", "read from")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One net on one runtime; ``problem``: why there is no coverage."""

    net: str
    target: str
    engine: str
    planned: float | None
    coverage: Coverage | None = None
    problem: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        """In the order of ``HEAD``."""
        names = (self.net, self.target, self.engine)
        planned = "–" if self.planned is None else f"{self.planned:.2f}"
        if self.coverage is None or self.coverage.int8_macs_pct is None:
            return (*names, "–", planned, "–", self.problem or "nothing is quantized")
        ops, outside = len(self.coverage.ops), len(self.coverage.outside)
        labelled = not self.coverage.proxy or "stand-in" in self.coverage.how
        read = self.coverage.how + ("" if labelled else " (stand-in)")
        return (*names, f"{self.coverage.int8_macs_pct:.2f}", planned, f"{ops - outside} of {ops}", read)


def main() -> int:
    parser = argparse.ArgumentParser(description="Print how much of each net runs in int8.")
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE", help="int8 bundles")
    parser.add_argument("--targets", nargs="+", metavar="NAME", default=["local"], help="default: local")
    parser.add_argument("--at-least", type=float, default=95.0, metavar="PERCENT", help="default: 95")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep every operation here")
    arguments = parser.parse_args()
    targets = [find_target(name) for name in arguments.targets]
    rows = [row for path in arguments.bundles for target in targets for row in rows_of(load_bundle(path), target)]
    print(f"| {' | '.join(HEAD)} |\n|{' --- |' * len(HEAD)}")
    for row in rows:
        print(f"| {' | '.join(row.cells)} |")
    for row in rows:
        for line in outside(row.coverage):
            print(f"\n{row.net}, {row.engine}: {line}")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps([raw(row) for row in rows], indent=1), encoding="utf-8")
    shares = [row.coverage.int8_macs_pct for row in rows if row.coverage is not None]
    return 1 if any(share is not None and share < arguments.at_least for share in shares) else 0


def rows_of(bundle: Bundle, target: Target) -> Iterator[Row]:
    """One row per runtime of the target that is to run int8 and is here."""
    portable = bundle.directory / "model.onnx"
    planned = int8_macs_pct(portable).value
    for rules in target.runtimes:
        availability = BACKENDS[rules.name].available()
        if "int8" not in rules.precisions or (availability.version is None and availability.needed):
            continue
        engine = f"{rules.name} {availability.version or ''}".strip()
        names = {"net": bundle.directory.name, "target": target.name, "engine": engine, "planned": planned}
        try:
            yield Row(**names, coverage=read(portable, target, rules))
        except EdgeOptError as error:
            yield Row(**names, problem=str(error))


def read(portable: Path, target: Target, rules: RuntimeRules) -> Coverage | None:
    """Compile the graph in the runtime's dialect, and ask what runs."""
    with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
        written, made = Path(folder) / "model.onnx", Path(folder) / "engine"
        made.mkdir()
        apply_dialect(rules.dialect, portable, written)
        engine = BACKENDS[rules.name].compile(written, target, rules, made, 1)
        return with_macs(engine.coverage, written, portable)


def outside(coverage: Coverage | None) -> list[str]:
    """One line per operation outside of int8."""
    if coverage is None:
        return []
    total = sum(op.macs for op in coverage.ops)
    return [
        f"{op.op} {op.node}, {100 * op.macs / total:.2f} % of the MACs, runs in {op.runs_in or 'what is not told'}: "
        f"{op.cause} {op.fix}".rstrip()
        for op in coverage.outside
    ]


def raw(row: Row) -> dict[str, Any]:
    """Everything that was told, for machines."""
    ops = [] if row.coverage is None else row.coverage.ops
    return {
        "bundle": row.net,
        "target": row.target,
        "engine": row.engine,
        "int8_macs_pct": None if row.coverage is None else row.coverage.int8_macs_pct,
        "int8_ops_pct": None if row.coverage is None else row.coverage.int8_ops_pct,
        "planned_pct": row.planned,
        "how": "" if row.coverage is None else row.coverage.how,
        "problem": row.problem,
        "ops": [{name: getattr(op, name) for name in op.__slots__} for op in ops],
    }


if __name__ == "__main__":
    sys.exit(main())
