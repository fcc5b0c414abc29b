"""Simulated gates: false FAILs without a true difference, coverage of the intervals, power at the planner's samples.

    python benchmarks/gate_simulation.py [--gates 1000] [--json FILE]

Accuracy gates draw paired test results from a multinomial distribution; metric gates draw per-sample errors of two
regression models and use the BCa bootstrap; latency gates draw rounds of blocks whose speed drifts from round to round.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from edgeopt.measure import statistics


@dataclass(frozen=True)
class Row:
    """One kind of gate. Shares of the simulated gates."""

    gate: str
    truth: str
    n: int
    gates: int
    passed: float
    failed: float
    covered: float
    wanted: str
    met: bool


def accuracy_row(name: str, *, n: int, limit: float, drop: float, discordance: float, gates: int, wanted: str) -> Row:
    rng = np.random.default_rng(0)
    shares = [(discordance + drop) / 2, (discordance - drop) / 2, 1 - discordance]
    intervals = [statistics.paired_difference(int(b), int(c), n) for b, c, _ in rng.multinomial(n, shares, size=gates)]
    return _row(name, intervals, drop, limit, n=n, wanted=wanted, unit=100, form="{:g} pp, limit {:g} pp")


def metric_row(name: str, *, n: int, limit: float, drop: float, gates: int, wanted: str) -> Row:
    rng = np.random.default_rng(0)
    intervals = []
    for seed in range(gates):
        reference = rng.exponential(size=n)  # absolute errors: skewed
        candidate = reference * rng.lognormal(-0.005, 0.1, size=n) + drop  # the factor's mean is 1
        difference = candidate - reference
        found = statistics.bootstrap(
            lambda w, d=difference: float(np.average(d, weights=w)), n, seed=seed, resamples=500
        )
        if found is not None:
            intervals.append(found)
    return _row(name, intervals, drop, limit, n=n, wanted=wanted, unit=1, form="MAE + {:g}, limit {:g}")


def latency_row(name: str, *, rounds: int, limit: float, ratio: float, gates: int, wanted: str) -> Row:
    rng = np.random.default_rng(0)
    intervals = []
    for seed in range(gates):
        drift = np.exp(np.cumsum(rng.normal(0, 0.01, rounds)))[:, None]  # one machine, getting faster and slower

        def times(scale: float, drift: np.ndarray = drift) -> np.ndarray:
            blocks = np.exp(rng.normal(0, 0.01, (rounds, 1)))
            return scale * drift * blocks * (1 + rng.gamma(2.0, 0.02, (rounds, 20)))

        intervals.append(statistics.ratio_of_medians(times(ratio), times(1.0), seed=seed)[1])
    return _row(name, intervals, ratio, limit, n=rounds * 20, wanted=wanted, unit=1, form="ratio {:g}, limit {:g}")


def _row(name, intervals, truth, limit, *, n, wanted, unit, form) -> Row:  # noqa: ANN001
    count = len(intervals)
    passed = sum(i.high <= limit for i in intervals) / count
    failed = sum(i.low > limit for i in intervals) / count
    covered = sum(i.low <= truth <= i.high for i in intervals) / count
    figures = {"passed": passed, "failed": failed, "covered": covered}
    conditions = [part.split() for part in wanted.split(", ")]
    met = all(
        figures[what] <= float(bound) if sign == "≤" else figures[what] >= float(bound)
        for what, sign, bound in conditions
    )
    text = form.format(unit * truth, unit * limit)
    return Row(name, text, n, count, round(passed, 4), round(failed, 4), round(covered, 4), wanted, met)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gates", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    gates, rows = options.gates, []
    aa, planned = "failed ≤ 0.05, covered ≥ 0.94", "failed ≥ 0.9"
    for discordance in (0.01, 0.03, 0.1):
        case = {"limit": 0.01, "discordance": discordance, "power": 0.9}
        to_pass = statistics.samples_needed(drop=0.0, **case) or 0
        to_fail = statistics.samples_needed(drop=0.02, **{**case, "discordance": max(discordance, 0.02)}) or 0
        shown = f"accuracy, {100 * discordance:g} % differ"
        at = {"gates": gates, "discordance": discordance}
        more = {**at, "gates": 10 * gates}  # the power is 0.9 by construction: 0.89 is three standard errors less
        # No difference and no margin: every FAIL is a false one.
        rows += [
            accuracy_row(f"{shown}, A/A at margin 0", n=5000, limit=0.0, drop=0.0, wanted=aa, **at),
            accuracy_row(f"{shown}, A/A", n=to_pass, limit=0.01, drop=0.0, wanted=f"{aa}, passed ≥ 0.89", **more),
            accuracy_row(
                f"{shown}, twice the margin", n=max(to_pass, to_fail), limit=0.01, drop=0.02, gates=gates,
                discordance=max(discordance, 0.02), wanted=planned,
            ),
        ]  # fmt: skip
    rows += [
        metric_row("mean absolute error, A/A at margin 0", n=1000, limit=0.0, drop=0.0, gates=gates, wanted=aa),
        metric_row("mean absolute error, twice the margin", n=1000, limit=0.02, drop=0.04, gates=gates, wanted=planned),
        latency_row("latency, A/A at ratio 1", rounds=20, limit=1.0, ratio=1.0, gates=gates, wanted=aa),
        latency_row("latency, A/A at 5 %", rounds=20, limit=1.05, ratio=1.0, gates=gates, wanted="failed ≤ 0.05"),
        latency_row("latency, twice the margin", rounds=20, limit=1.05, ratio=1.1, gates=gates, wanted=planned),
    ]
    print("| gate | truth | samples | gates | PASS | FAIL | interval holds the truth | wanted | |")
    print("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        met = "met" if row.met else "MISSED"
        print(
            f"| {row.gate} | {row.truth} | {row.n:,} | {row.gates:,} | {row.passed:.3f} | {row.failed:.3f} "
            f"| {row.covered:.3f} | {row.wanted} | {met} |"
        )
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
