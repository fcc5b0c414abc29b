"""How well each recipe quantizes each net of the zoo, on every runtime that is here, beside what is wanted.

    python benchmarks/zoo/train.py build/zoo
    python benchmarks/quality.py build/zoo --recipes int8-ptq int8-ptq-accurate --json build/quality.json

Per net and recipe one ``edgeopt.compile(..., target="local")``, which runs every test sample through every engine and times
all of them in turns, one thread each. Prints a table in Markdown. Quantized graphs are cached; timings are taken anew.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wanted import Wanted, wanted
from zoo_folder import Net, add_arguments, find_nets, use_own_cache

import edgeopt
from edgeopt.bundle.document import Candidate, Report
from edgeopt.core.errors import EdgeOptError
from edgeopt.core.measurement import Measurement

BLOCK = 20  # inferences per turn
HEAD = (
    "net",
    "recipe",
    "engine",
    "FP32 top-1",
    "drop, pp",
    "agreement, %",
    "SQNR, dB",
    "latency ÷ FP32",
    "size ÷ FP32",
)
NOTES = """\
Top-1, drop, agreement and SQNR: all test samples (n), on the runtime named, against FP32 on the same runtime. In
brackets: 95 % intervals. After each figure: what is wanted, and whether the figure itself holds it; `~`: its interval
holds values on both sides of the limit. SQNR: of the scores. Latency: p50 at batch 1, one thread, engines in turns.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A figure, the limit beside it, and whether it holds: None where nothing is wanted."""

    text: str
    holds: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One net, recipe and runtime."""

    names: tuple[str, str, str]
    cells: tuple[Cell, ...]


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure how well recipes quantize the zoo.")
    add_arguments(parser)
    parser.add_argument("--recipes", nargs="+", metavar="NAME", default=["int8-ptq"], help="default: int8-ptq")
    parser.add_argument(
        "--runs", type=int, default=40, help=f"turns of {BLOCK} timed inferences per engine (default: 40)"
    )
    parser.add_argument("--set", nargs="+", metavar="KEY=VALUE", default=[], dest="overrides", help="recipe overrides")
    parser.add_argument("--out", type=Path, help="keep the bundles here (default: <zoo>/.bundles)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the raw figures")
    arguments = parser.parse_args()
    nets = find_nets(arguments.zoo, arguments.nets)
    shutil.rmtree(use_own_cache(arguments.zoo) / "measure", ignore_errors=True)  # timings of another day
    overrides = [f"measure.latency_samples={arguments.runs * BLOCK}", f"measure.block={BLOCK}", *arguments.overrides]
    rows: list[Row] = []
    raw: list[dict[str, Any]] = []
    failures: list[str] = []
    for net in nets:
        for recipe in arguments.recipes:
            folder = (arguments.out or arguments.zoo / ".bundles") / f"{net.name}-{Path(recipe).stem}"
            begun = time.perf_counter()
            try:
                bundle = edgeopt.compile(
                    net.model, target="local", data=str(net.data), recipe=recipe, overrides=overrides, output=folder
                )
            except EdgeOptError as error:
                failures.append(f"{net.name}, {recipe}: {error}")
                raw.append({"net": net.name, "recipe": recipe, "failed": str(error)})
                continue
            minutes = (time.perf_counter() - begun) / 60
            print(f"{net.name}, {recipe}: {minutes:.1f} min, {bundle.report.verdict.summary}", file=sys.stderr)
            rows += rows_of(net, recipe, bundle.report)
            raw.append(raw_of(net, recipe, bundle.report, minutes))
            if arguments.json:  # after each: an interrupted run keeps what it has
                arguments.json.parent.mkdir(parents=True, exist_ok=True)
                arguments.json.write_text(json.dumps(raw, indent=1), encoding="utf-8")
    print_table(rows, failures)
    return 1 if failures else 0


def rows_of(net: Net, recipe: str, report: Report) -> Iterator[Row]:
    """One row per runtime, or one that says why the engine may not be used; of a ladder, what it ships."""
    candidates = [c for c in report.candidates if c.role == "candidate"]
    if report.ladder is not None:
        candidates = [report.shipped]
    measured = [c for c in candidates if c.status == "measured"]
    fastest = min(measured, key=lambda c: value(c, "latency_p50_ms") or float("inf"), default=None)
    limits = wanted(net.name, recipe)
    for candidate in candidates:
        form = "" if candidate.dialect == "float" else f", {candidate.dialect}"
        engine = f"{candidate.runtime} {candidate.runtime_version}{form}"
        names = (net.name, recipe if report.ladder is None else f"{recipe}: {candidate.id}", engine)
        if candidate.status != "measured":
            yield Row(names=names, cells=(Cell(text=f"{candidate.status}: {candidate.reason}", holds=False),))
            continue
        reference = next(c for c in report.candidates if c.role == "reference" and c.runtime == candidate.runtime)
        timed = not limits.on_faster or candidate is fastest
        yield Row(names=names, cells=tuple(cells(candidate, reference, limits, timed=timed)))


def cells(candidate: Candidate, reference: Candidate, limits: Wanted, *, timed: bool) -> Iterator[Cell]:
    """The figures of one engine, in the order of ``HEAD``."""
    top1 = reference.figure("accuracy_top1_pct")
    yield Cell(text="–" if top1 is None or top1.value is None else f"{top1.value:.2f} % (n={top1.n:,})")
    yield judged(candidate.figure("drop_pp"), limits.drop_pp, at_most=True, digits=2)
    yield judged(candidate.figure("agreement_pct"), limits.agreement_pct, at_most=False, digits=2)
    yield judged(candidate.figure("output_sqnr_db"), limits.sqnr_db, at_most=False, digits=1)
    limit = limits.latency_ratio.get(candidate.runtime) if timed else None
    yield judged(candidate.figure("latency_ratio"), limit, at_most=True, digits=2)
    yield judged(size_ratio(candidate, reference), limits.size_ratio, at_most=True, digits=3)


def judged(figure: Measurement | None, limit: float | None, *, at_most: bool, digits: int) -> Cell:
    """A figure beside its limit. The figure decides; that its interval leaves it open is shown."""
    if figure is None or figure.value is None:
        equal = figure is not None and "bit by bit" in (figure.reason or "")  # no noise at all
        return Cell(text="∞" if equal else "–", holds=None if limit is None else equal)
    text = f"{figure.value:.{digits}f}"
    if figure.interval is not None:
        text += f" [{figure.interval.low:.{digits}f}, {figure.interval.high:.{digits}f}]"
    if limit is None:
        return Cell(text=text)
    # Percentages of n samples: 0.3 pp is 0.30000000000000004 in float64.
    holds = figure.value <= limit + 1e-9 if at_most else figure.value >= limit - 1e-9
    open_ = figure.interval is not None and figure.interval.low < limit < figure.interval.high
    verdict = ("PASS" if holds else "FAIL") + ("~" if open_ else "")
    return Cell(text=f"{text} {'≤' if at_most else '≥'} {limit:g} **{verdict}**", holds=holds)


def size_ratio(candidate: Candidate, reference: Candidate) -> Measurement | None:
    mine, theirs = value(candidate, "size_mib"), value(reference, "size_mib")
    return None if not mine or not theirs else Measurement(name="size_ratio", value=mine / theirs, unit="1")


def value(candidate: Candidate, name: str) -> float | None:
    figure = candidate.figure(name)
    return None if figure is None else figure.value


def raw_of(net: Net, recipe: str, report: Report, minutes: float) -> dict[str, Any]:
    """Everything that was measured, for whoever wants to count again."""
    return {
        "net": net.name,
        "recipe": recipe,
        "minutes": minutes,
        "created": report.created,
        "edgeopt_version": report.edgeopt_version,
        "model_sha256": report.model.sha256,
        "data_fingerprint": None if report.data is None else report.data.fingerprint,
        "device": report.device.model_dump(mode="json"),
        "wanted": dataclasses.asdict(wanted(net.name, recipe)),
        "verdict": report.verdict.model_dump(mode="json"),
        "stages": [stage.model_dump(mode="json") for stage in report.stages],
        "trials": [trial.model_dump(mode="json") for trial in report.trials],
        "ladder": None if report.ladder is None else report.ladder.model_dump(mode="json"),
        "candidates": [candidate.model_dump(mode="json", exclude={"classes"}) for candidate in report.candidates],
    }


def print_table(rows: list[Row], failures: list[str]) -> None:
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for row in rows:
        texts = [*row.names, *(cell.text for cell in row.cells)]
        print(f"| {' | '.join([*texts, *[''] * (len(HEAD) - len(texts))])} |")
    held = [cell.holds for row in rows for cell in row.cells if cell.holds is not None]
    print(f"\n{NOTES}\n{sum(held)} of {len(held)} limits hold.")
    for failure in failures:
        print(f"\nFAILED {failure}")


if __name__ == "__main__":
    sys.exit(main())
