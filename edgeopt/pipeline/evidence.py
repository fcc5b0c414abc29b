"""What is measured on engines: outputs on real samples, accuracy, latency, memory."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt.bundle.document import ClassRow, DeviceInfo
from edgeopt.core.engine import Engine
from edgeopt.core.measurement import Measurement
from edgeopt.data.contract import Dataset, Split
from edgeopt.devices.base import Device
from edgeopt.pipeline import records
from edgeopt.pipeline.context import RunContext
from edgeopt.recipes.schema import Measure

__all__ = ["Figures", "collect", "judge_outputs", "measure_speed", "ratio", "size_mib"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Everything measured on one engine."""

    measurements: tuple[Measurement, ...]
    latency_ms: tuple[float, ...] = ()


def collect(
    context: RunContext,
    device: Device,
    info: DeviceInfo,
    engine: Engine,
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
        outputs = collect_outputs(device, engine, split, names, folder, batch, context.progress)
        for index, spec in enumerate(engine.outputs):
            np.save(folder / f"output-{index}.npy", outputs[spec.name])

    inputs = {"engine": key, "split": split.fingerprint, "device": info.model_dump(mode="json", exclude={"conditions"})}
    folder = context.stage("outputs", label, inputs | {"batch": batch}, build)
    return {
        spec.name: np.load(folder / f"output-{index}.npy", mmap_mode="r") for index, spec in enumerate(engine.outputs)
    }


def judge_outputs(
    reference: tuple[np.ndarray, ...],
    outputs: tuple[np.ndarray, ...],
    data: Dataset,
    device: str,
    conditions: dict[str, Any],
) -> tuple[tuple[Measurement, ...], tuple[ClassRow, ...]]:
    """Accuracy, paired drop and agreement of an engine against the FP32 reference on the same samples."""
    from edgeopt.measure.classification import evaluate, evaluate_unlabelled

    if data.task == "unlabelled":
        return evaluate_unlabelled(reference[0], outputs[0], device=device, conditions=conditions), ()
    labels = [batch.labels for batch in data.splits["test"].batches(1024)]
    known = np.concatenate([array for array in labels if array is not None])
    return evaluate(reference[0], outputs[0], known, data.classes, device=device, conditions=conditions)


def measure_speed(
    context: RunContext,
    device: Device,
    info: DeviceInfo,
    engines: Mapping[str, tuple[Engine, str]],
    sample: Mapping[str, np.ndarray],
    config: Measure,
    batch: int,
) -> dict[str, Figures]:
    """Latency, throughput, cold start, memory and size of engines, interleaved, each in a fresh process."""
    from edgeopt.measure.latency import measure_latency

    def build(folder: Path) -> None:
        made = measure_latency(
            device,
            {name: engine for name, (engine, _) in engines.items()},
            sample=sample,
            config=config,
            batch=batch,
            progress=context.progress,
        )
        when = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        stamped = {
            name: Figures(
                measurements=tuple(_stamp(m, when) for m in figures.measurements), latency_ms=figures.latency_ms
            )
            for name, figures in made.items()
        }
        records.write(folder / "figures.json", dict[str, Figures], stamped)

    inputs = {
        "engines": {name: key for name, (_, key) in engines.items()},
        "config": config.model_dump(mode="json"),
        "batch": batch,
        "device": info.model_dump(mode="json", exclude={"conditions"}),
    }
    folder = context.stage("measure", "measure", inputs, build)
    return records.read(folder / "figures.json", dict[str, Figures])


def _stamp(measurement: Measurement, when: str) -> Measurement:
    return replace(measurement, conditions={**measurement.conditions, "measured_at": when})


def ratio(candidate: Figures, reference: Figures) -> Measurement:
    """Median latency of a candidate against its FP32 reference, from interleaved blocks."""
    from edgeopt.measure.latency import latency_ratio

    return latency_ratio(candidate, reference)


def size_mib(engine: Engine) -> Measurement:
    """What the engine's files take on disk."""
    size = sum(path.stat().st_size for path in engine.directory.rglob("*") if path.is_file())
    return Measurement(name="size_mib", value=size / 2**20, unit="MiB", n=1, conditions={"engine": engine.status})
