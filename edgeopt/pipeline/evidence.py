"""What is measured on engines: outputs on real samples, accuracy, latency, memory."""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeopt.bundle.document import DeviceInfo
from edgeopt.core.engine import Engine
from edgeopt.core.fingerprint import hash_array
from edgeopt.core.measurement import Measurement
from edgeopt.data.contract import Dataset, Split
from edgeopt.devices.base import Device
from edgeopt.pipeline import records
from edgeopt.pipeline.context import RunContext
from edgeopt.recipes.schema import Measure

if TYPE_CHECKING:  # SciPy, only where something is really judged
    from edgeopt.measure.evaluation import Evaluation

__all__ = ["Figures", "collect", "judge_outputs", "measure_speed", "size_mib"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Everything measured on one engine. ``failed``: why it could not be run to the end."""

    measurements: tuple[Measurement, ...]
    latency_ms: tuple[float, ...] = ()
    failed: str = ""


def collect(
    context: RunContext,
    device: Device,
    info: DeviceInfo,
    engine: Engine,
    *,
    key: str,
    split: Split,
    label: str,
    batch: int,
) -> dict[str, np.ndarray]:
    """Run a whole split through an engine in a fresh process.

    Returns:
        One array [N, …] per output, read from disk as it is used.
    """
    from edgeopt.measure.outputs import collect_outputs

    def build(folder: Path) -> None:
        names = [spec.name for spec in engine.inputs]
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            outputs = collect_outputs(device, engine, split, names, Path(scratch), batch, context.progress)
            for index, spec in enumerate(engine.outputs):
                np.save(folder / f"output-{index}.npy", outputs[spec.name])

    inputs = {"engine": key, "split": split.fingerprint, "device": info.model_dump(mode="json", exclude={"conditions"})}
    folder = context.stage("outputs", label, inputs | {"batch": batch}, build)
    return {
        spec.name: np.load(folder / f"output-{index}.npy", mmap_mode="r") for index, spec in enumerate(engine.outputs)
    }


def judge_outputs(
    reference: Mapping[str, np.ndarray],
    outputs: Mapping[str, np.ndarray],
    data: Dataset,
    device: str,
    conditions: dict[str, Any],
    *,
    seed: int = 0,
) -> Evaluation:
    """An engine's outputs on the test split judged by the data's metrics, beside FP32's on the same samples.

    Args:
        reference: By output name, [N, …], in the model's order; the very same mapping where FP32 itself is judged.
        outputs: Likewise.
        seed: Of resamples.
    """
    from edgeopt.measure.evaluation import evaluate_outputs
    from edgeopt.measure.outputs import collect_targets, judged_output

    mine = judged_output(outputs, data)
    theirs = mine if outputs is reference else judged_output(reference, data)
    first = (next(iter(reference.values())), next(iter(outputs.values())))
    targets = None if data.task == "unlabelled" else collect_targets(data.splits["test"])
    return evaluate_outputs(theirs, mine, targets, data, device=device, conditions=conditions, near=first, seed=seed)


def measure_speed(
    context: RunContext,
    device: Device,
    info: DeviceInfo,
    engines: Mapping[str, tuple[Engine, str]],
    *,
    references: Mapping[str, str],
    sample: Mapping[str, np.ndarray],
    config: Measure,
    batch: int,
    cold_starts: int = 3,
    label: str = "measure",
) -> dict[str, Figures]:
    """Latency, throughput, cold start, memory and size of engines, interleaved, each in a fresh process.

    Args:
        engines: By candidate id: the engine, and the content hash of what made it.
        references: Candidate id → the id of its FP32 reference, for the ratio of latencies.
        sample: Real samples, one array [N, …] per input name.
        cold_starts: Fresh processes per engine.
        label: Of the stage.
    """
    from edgeopt.measure.latency import latency_ratio, measure_latency

    def build(folder: Path) -> None:
        made = measure_latency(
            device,
            {name: engine for name, (engine, _) in engines.items()},
            sample=sample,
            config=config,
            batch=batch,
            progress=context.progress,
            seed=context.seed,
            cold_starts=cold_starts,
        )
        when = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
        figures = {}
        for name, one in made.items():
            ratio = [latency_ratio(one, made[references[name]])] if references.get(name) in made else []
            stamped = tuple(_stamp(m, when) for m in (*one.measurements, *ratio))
            figures[name] = Figures(measurements=stamped, latency_ms=one.latency_ms, failed=one.failed)
        records.write(folder / "figures.json", dict[str, Figures], figures)

    inputs = {
        "engines": {name: key for name, (_, key) in engines.items()},
        "references": dict(references),
        "config": config.model_dump(mode="json"),
        "batch": batch,
        "sample": {name: hash_array(array) for name, array in sample.items()},
        "device": info.model_dump(mode="json", exclude={"conditions"}),
        "seed": context.seed,
        "cold_starts": cold_starts,
    }
    folder = context.stage("measure", label, inputs, build)
    return records.read(folder / "figures.json", dict[str, Figures])


def _stamp(measurement: Measurement, when: str) -> Measurement:
    return replace(measurement, conditions={**measurement.conditions, "measured_at": when})


def size_mib(engine: Engine) -> Measurement:
    """What the engine's files take on disk."""
    size = sum(path.stat().st_size for path in engine.directory.rglob("*") if path.is_file())
    return Measurement(name="size_mib", value=size / 2**20, unit="MiB", n=1, conditions={"engine": engine.status})
