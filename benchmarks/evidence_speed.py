"""How long the statistics of one candidate take: all metrics of a classifier, their drops, and 100 slices.

python benchmarks/evidence_speed.py [--samples 10000] [--slices 100] [--runs 5]
"""

from __future__ import annotations

import argparse
import statistics as plain
import tempfile
import time
from pathlib import Path

import numpy as np

from edgeopt.bundle.outcomes import write_outcomes
from edgeopt.core.slices import SliceColumn
from edgeopt.data.contract import Dataset, Split
from edgeopt.measure.evaluation import evaluate_outputs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--slices", type=int, default=100)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    n, classes = options.samples, options.classes
    labels = rng.integers(0, classes, n)
    reference = rng.normal(size=(n, classes)).astype(np.float32)
    reference[np.arange(n), labels] += 3
    outputs = reference + 0.3 * rng.normal(size=reference.shape).astype(np.float32)
    codes = rng.integers(0, options.slices, n).astype(np.int32)
    column = SliceColumn(codes=codes, values=tuple(map(str, range(options.slices))))
    split = Split(
        name="test", source=None, indices=np.arange(n), how="made", fingerprint="0" * 64, columns={"part": column}  # type: ignore[arg-type]
    )  # fmt: skip
    data = Dataset(name="made", task="classification", splits={"test": split}, fingerprint="0")
    for name, metrics in (
        ("the task's own metrics", ()),
        ("F1 decides in every slice", ("f1_macro_pct", "log_loss_nats")),
        ("ROC-AUC and average precision", ("accuracy_top1_pct", "roc_auc_pct", "average_precision_pct")),
    ):
        walls = []
        for run in range(options.runs):
            chosen = Dataset(**{**{f: getattr(data, f) for f in data.__slots__}, "metrics": metrics})
            start = time.perf_counter()
            found = evaluate_outputs(reference, outputs, labels, chosen, device="none", seed=run)
            walls.append(time.perf_counter() - start)
        print(
            f"{name}: {n:,} samples × {len(found.slices)} slices, {len(found.measurements)} figures: "
            f"median {plain.median(walls):.2f} s [{min(walls):.2f}, {max(walls):.2f}], n = {options.runs}"
        )
        if found.outcomes is not None:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / "outcomes.npz"
                write_outcomes(file, found.outcomes)
                print(f"  outcomes.npz: {file.stat().st_size / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
