"""What a training was, for the report."""

from __future__ import annotations

import math
from typing import Any

from edgeopt.bundle.document import TrainingEpoch, TrainingSection
from edgeopt.compress.training.job import Job, Trained
from edgeopt.core.events import Event
from edgeopt.core.measurement import Measurement

__all__ = ["events_of", "section_of"]

# Row's key → name, unit and factor of the figure.
_FIGURES = {
    "accuracy": ("tune_accuracy_pct", "%", 100.0),
    "agreement": ("tune_agreement_pct", "%", 100.0),
    "loss_on_labels": ("tune_loss", "nat", 1.0),
    "divergence": ("tune_divergence", "nat", 1.0),
    "sqnr_db": ("tune_sqnr_db", "dB", 1.0),
}


def section_of(result: Trained, job: Job, step: str) -> TrainingSection:
    """The training as the report holds it."""
    classification = job.loss.classification
    return TrainingSection(
        step=step,
        samples=len(job.batches.split),
        best_epoch=result.best_epoch,
        ended=result.ended,
        epochs=tuple(
            TrainingEpoch(
                epoch=row["epoch"],
                loss=row["loss"],
                learning_rate=row["learning_rate"],
                figures=tuple(_figures(row, classification=classification)),
            )
            for row in result.curve
        ),
    )


def events_of(result: Trained, step: str) -> list[Event]:
    """What a reader must know: that it broke off, that it gained nothing, that it went on where another run stopped."""
    events = []
    if result.trouble:
        message = f"Training broke off: {result.trouble}; the best epoch before that, {result.best_epoch}, was kept."
        events.append(Event(kind="warning", stage=step, message=message))
    elif result.ended.startswith("the time limit"):
        message = f"Training ended after epoch {len(result.curve) - 1}: {result.ended}."
        events.append(Event(kind="note", stage=step, message=message))
    if result.best_epoch == 0:
        message = "No epoch was better on the tuning split than the untrained start, which was kept."
        events.append(Event(kind="note", stage=step, message=message))
    return events


def _figures(row: dict[str, Any], *, classification: bool) -> list[Measurement]:
    found = []
    for key, (name, unit, factor) in _FIGURES.items():
        value = row[key]
        if value is None or not math.isfinite(value):
            continue
        where = unit if classification or key not in ("divergence", "loss_on_labels") else "1"
        found.append(Measurement(name=name, value=factor * value, unit=where, n=row["n"]))
    return found
