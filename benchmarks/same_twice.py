"""A bundle against itself, 20 times: how often does a latency gate of 5 % say FAIL, or cannot say?

python benchmarks/same_twice.py BUNDLE [--times 20] [--margin 5] [--samples 400]

Nothing differs, so every FAIL is a false alarm. PASS: the interval of the ratio lies below 1 + margin; FAIL: above;
INCONCLUSIVE: it straddles, or the engine differs from itself by more than the margin in the run's own A/A (two processes of
the baseline). Both ratios are judged, that of p50 and that of p99.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from edgeopt.bundle.layout import RECIPE, read_reference
from edgeopt.bundle.load import load_bundle
from edgeopt.core.measurement import Measurement
from edgeopt.devices.local import LocalDevice
from edgeopt.measure.compare import compare_engines, floor_share
from edgeopt.recipes.load import load_recipe


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--margin", type=float, default=5.0, help="percent")
    parser.add_argument("--samples", type=int, default=400)
    chosen = parser.parse_args()
    bundle = load_bundle(chosen.bundle)
    recipe = load_recipe(bundle.directory / RECIPE)
    reference = read_reference(bundle.directory)
    if reference is None:
        raise SystemExit("The bundle holds no reference inputs to run on.")
    config = recipe.measure.model_copy(update={"batch_sizes": (), "latency_samples": chosen.samples})
    batch, margin = bundle.manifest.engine.batch or recipe.export.batch, chosen.margin / 100
    counts: dict[str, Counter[str]] = {"p50": Counter(), "p99": Counter()}
    for time in range(chosen.times):
        found = compare_engines(
            LocalDevice(),
            bundle.engine,
            bundle.engine,
            sample=reference[0],
            config=config,
            batch=batch,
            precision=margin,
            seed=time,
        )
        words = []
        for name, ratio, floor in (
            ("p50", found.p50_ratio, found.noise_floor),
            ("p99", found.p99_ratio, found.noise_floor_p99),
        ):
            verdict = judge(ratio, floor, margin)
            counts[name][verdict] += 1
            words.append(f"{name} {text(ratio)}, itself {text(floor)}: {verdict}")
        print(f"{time + 1:>3}  " + "   ".join(words), flush=True)
    for name, verdicts in counts.items():
        told = ", ".join(f"{verdicts[verdict]} {verdict}" for verdict in ("PASS", "FAIL", "INCONCLUSIVE"))
        print(f"{name}: {told}, of {chosen.times} at {chosen.margin:g} %")
    return 1 if any(verdicts["FAIL"] for verdicts in counts.values()) else 0


def judge(ratio: Measurement, floor: Measurement, margin: float) -> str:
    """What a gate would say."""
    share = floor_share(floor)
    if ratio.interval is None or share is None or share > margin:
        return "INCONCLUSIVE"
    if ratio.interval.high <= 1 + margin:
        return "PASS"
    return "FAIL" if ratio.interval.low > 1 + margin else "INCONCLUSIVE"


def text(ratio: Measurement) -> str:
    if ratio.interval is None:
        return "not measured"
    return f"{ratio.value:.3f} [{ratio.interval.low:.3f}, {ratio.interval.high:.3f}]"


if __name__ == "__main__":
    sys.exit(main())
