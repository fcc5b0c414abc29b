"""All artifacts on all test samples, and on the clock: every figure of the table."""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgeopt.core.engine import Engine
from edgeopt.core.errors import EdgeOptError
from edgeopt.core.fingerprint import hash_file, hash_json
from edgeopt.core.measurement import Interval, Measurement
from edgeopt.devices.registry import open_device
from edgeopt.measure import statistics
from edgeopt.measure.latency import EngineFigures, latency_ratio, measure_latency
from edgeopt.measure.outputs import collect_outputs
from edgeopt.recipes.schema import Measure
from peers.engines import FP32, Entry
from peers.nets import Net

__all__ = ["Row", "evaluate", "measure", "time_engines"]

_REFERENCE_RUNTIME = "onnxruntime"
_WORKERS = 2


@dataclass(kw_only=True)
class Row:
    """An entry with its figures; None where the entry failed.

    Attributes:
        right: bool [M]: which test samples it gets right (where there are no labels: predicts as FP32 does).
        drop_pp: Accuracy of FP32 minus its own, paired, with an interval; None without labels.
        agreement_pct: Share of test samples predicted as FP32 on ONNX Runtime predicts them.
        sqnr_db: Of its outputs against FP32's, over all test samples; inf where they are equal.
        figures: Latency and the like.
        ratio: Its median latency over edgeopt's on the same runtime.
    """

    entry: Entry
    right: np.ndarray | None = None
    drop_pp: tuple[float, Interval] | None = None
    agreement_pct: float | None = None
    sqnr_db: float | None = None
    figures: EngineFigures | None = None
    ratio: Measurement | None = field(default=None)

    @property
    def latency_ms(self) -> float | None:
        """Median, batch 1, one thread."""
        return None if self.figures is None or self.figures.failed else self.figures.figure("latency_p50_ms").value


def evaluate(net: Net, entries: Sequence[Entry], work: Path) -> list[Row]:
    """Run every engine, as it is measured (batch 1), on all test samples; what was run before is read again."""
    with ThreadPoolExecutor(_WORKERS) as pool:
        outputs = dict(
            zip((e.id for e in entries), pool.map(lambda entry: _outputs(net, entry, work), entries), strict=True)
        )
    reference = outputs[f"{FP32} on {_REFERENCE_RUNTIME}"]
    if reference is None:
        raise RuntimeError(f"FP32 does not run: {next(e.error for e in entries if e.tool == FP32)}")
    return [_row(entry, outputs[entry.id], reference, net.labels) for entry in entries]


def measure(net: Net, rows: Sequence[Row], samples: int, starts: int) -> None:
    """Time all engines of a net against each other: one thread, batch 1, fresh processes, blocks in turns.

    Processes of one file differ, by up to a third on some machines: of each engine's ``starts`` the fastest counts.
    """
    engines = {row.entry.id: row.entry.engine for row in rows if row.entry.engine is not None and not row.entry.error}
    for made in time_engines(net, engines, samples, starts):
        for row in rows:
            before = row.figures
            row.figures = made.get(row.entry.id, before)
            if row.figures is not None and row.figures.failed:
                row.entry.error = row.figures.failed
            elif before is not None and not before.failed:
                row.figures = min(before, row.figures or before, key=_p50_ms)
    for row in rows:
        mine = [own for own in rows if own.entry.own and own.entry.runtime == row.entry.runtime and own.latency_ms]
        if mine and row.figures is not None:
            fastest = min(mine, key=lambda own: own.latency_ms or math.inf)
            row.ratio = latency_ratio(row.figures, fastest.figures)  # type: ignore[arg-type]


def time_engines(
    net: Net, engines: Mapping[str, Engine], samples: int, starts: int
) -> Iterator[Mapping[str, EngineFigures]]:
    """Each start's figures, by the id of the engine: fresh processes, all in turns, one thread, batch 1."""
    first = next(net.test.batches(8, 8))
    for start in range(starts):
        yield measure_latency(
            open_device("local"),
            engines,
            sample=dict(zip(net.input_names, first.inputs, strict=True)),
            config=Measure(batch_sizes=(), threads=1, latency_samples=samples),
            batch=1,
            seed=start,
            cold_starts=1,
        )


def _p50_ms(figures: EngineFigures) -> float:
    return figures.figure("latency_p50_ms").value or math.inf


def _outputs(net: Net, entry: Entry, work: Path) -> np.ndarray | None:
    """The first output on all test samples, [M, …]."""
    engine = entry.engine
    if engine is None or entry.error:
        return None
    files = sorted(path for path in engine.directory.rglob("*") if path.is_file())
    properties = engine.options.get("properties", {})
    made = [engine.runtime, engine.runtime_version, properties, [hash_file(f) for f in files]]
    key = hash_json([*made, net.test.fingerprint])
    kept = work / "outputs" / f"{net.name}-{engine.runtime}-{key[:16]}.npy"
    if not kept.is_file():
        print(f"  {net.name}: evaluating {entry.id}", file=sys.stderr)
        kept.parent.mkdir(parents=True, exist_ok=True)
        # Of its own: two tools may make the same engine, and two engines are run at a time.
        with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
            try:
                found = collect_outputs(
                    open_device("local"), engine, net.test, net.input_names, Path(scratch), 1, threads=1
                )
            except EdgeOptError as error:
                entry.error = " ".join(str(error).split())
                return None
            (Path(scratch) / "output-0.npy").replace(kept)
            del found
    return np.load(kept, mmap_mode="r")


def _row(entry: Entry, outputs: np.ndarray | None, reference: np.ndarray, labels: np.ndarray | None) -> Row:
    if outputs is not None and outputs.shape != reference.shape:
        entry.error = f"its output has shape {outputs.shape}, FP32's {reference.shape}"
    if outputs is not None and not np.isfinite(outputs).all():
        entry.error = "its outputs hold NaN or infinity"
    if outputs is None or entry.error:
        return Row(entry=entry)
    predicted, wanted = outputs.argmax(axis=1), reference.argmax(axis=1)
    row = Row(entry=entry, right=predicted == (wanted if labels is None else labels))
    row.agreement_pct = 100 * float((predicted == wanted).mean())
    x, y = np.asarray(reference, dtype=np.float64), np.asarray(outputs, dtype=np.float64)
    noise = float(((x - y) ** 2).sum())
    row.sqnr_db = 10 * math.log10(float((x * x).sum()) / noise) if noise else math.inf
    if labels is not None:
        base = wanted == labels
        lost, won, count = int((base & ~row.right).sum()), int((~base & row.right).sum()), len(labels)
        interval = statistics.paired_difference(lost, won, count)
        row.drop_pp = 100 * (lost - won) / count, interval
    return row
