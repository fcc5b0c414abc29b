"""A portable graph and what is known about it, as a stage's folder keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeopt.bundle.document import LayerRow, ParityRow, TrainingSection, TrialRow
from edgeopt.core.events import Event
from edgeopt.pipeline import records
from edgeopt.pipeline.context import RunContext

__all__ = ["Graph", "read_graph", "write_graph"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A portable ONNX graph in the neutral form, and what is known about it.

    Attributes:
        path: ``model.onnx``; external data beside it.
        reference: The FP32 PyTorch outputs on the parity inputs (the graph's own, for a model given as ONNX). After float
            steps: those of the last one's program.
        whose: Whose these are, in words.
        seconds: What making it took, where it was not only exported.
        calibration: ``calibration.json``, where it is quantized.
    """

    path: Path
    reference: tuple[np.ndarray, ...]
    parity: list[ParityRow]
    events: list[Event]
    layers: list[LayerRow]
    training: list[TrainingSection]
    trials: list[TrialRow]
    calibration: Path | None = None
    whose: str = "PyTorch FP32"
    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    whose: str
    seconds: float | None


def write_graph(
    folder: Path,
    *,
    reference: tuple[np.ndarray, ...],
    parity: list[ParityRow],
    events: list[Event],
    layers: list[LayerRow] | None = None,
    training: list[TrainingSection] | None = None,
    trials: list[TrialRow] | None = None,
    whose: str = "PyTorch FP32",
    seconds: float | None = None,
) -> None:
    """Write everything but the graph itself into the folder of the stage that made it."""
    for index, array in enumerate(reference):
        np.save(folder / f"reference-{index}.npy", array)
    records.write(folder / "made.json", _Made, _Made(whose=whose, seconds=seconds))
    records.write(folder / "parity.json", list[ParityRow], parity)
    records.write(folder / "events.json", list[Event], events)
    records.write(folder / "layers.json", list[LayerRow], layers or [])
    records.write(folder / "training.json", list[TrainingSection], training or [])
    records.write(folder / "trials.json", list[TrialRow], trials or [])


def read_graph(folder: Path, context: RunContext) -> Graph:
    """Read it back; the run's report takes note of its parity and its events."""
    count = len(list(folder.glob("reference-*.npy")))
    reference = tuple(np.load(folder / f"reference-{index}.npy") for index in range(count))
    calibration, made = folder / "calibration.json", records.read(folder / "made.json", _Made)
    graph = Graph(
        path=folder / "model.onnx",
        reference=reference,
        parity=records.read(folder / "parity.json", list[ParityRow]),
        events=records.read(folder / "events.json", list[Event]),
        layers=records.read(folder / "layers.json", list[LayerRow]),
        training=records.read(folder / "training.json", list[TrainingSection]),
        trials=records.read(folder / "trials.json", list[TrialRow]),
        calibration=calibration if calibration.is_file() else None,
        whose=made.whose,
        seconds=made.seconds,
    )
    context.parity.extend(row for row in graph.parity if row not in context.parity)
    context.note([event for event in graph.events if event not in context.events])
    return graph
