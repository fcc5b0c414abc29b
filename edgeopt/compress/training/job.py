"""What a training is given and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from edgeopt.compress.calibrate import Feed
from edgeopt.compress.training.batches import TrainingBatches
from edgeopt.compress.training.losses import Loss
from edgeopt.compress.training.tape import Tape
from edgeopt.data.contract import Split
from edgeopt.recipes.training import Training

__all__ = ["Job", "Trained", "Trainee", "best_row"]


class Trainee(Protocol):
    """A ``torch.nn.Module`` that is trained: flat inputs to a tuple of outputs. It can be pickled."""

    def begin_epoch(self, epoch: int) -> None:
        """Freeze what the recipe freezes from this epoch (from 0) on."""
        ...

    def settle(self) -> None:
        """Bring derived state in line with the parameters; called before every scoring."""
        ...


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training, in a form that can be sent to other processes.

    Attributes:
        student: A ``Trainee``.
        reference: The original FP32 model: the teacher, and what scores are held against. Where features are compared, its
            outputs and the student's are followed by them.
        batches: Of the train split, for a single process.
        tune: The tuning split; ``feed`` reads it.
        workspace: Where the checkpoint lies; None: there is none.
        deadline: When it is to end, seconds of ``time.monotonic``; None: never.
        masks: Name of a parameter of the student → bool tensor of its shape: where it is False the parameter is zero, and
            stays zero through every step.
    """

    student: Any
    reference: Tape
    loss: Loss
    config: Training
    batches: TrainingBatches
    feed: Feed
    tune: Split
    workspace: Path | None
    deadline: float | None = None
    masks: Mapping[str, torch.Tensor] = field(default_factory=dict)


@dataclass(kw_only=True)
class Trained:
    """What came of it.

    Attributes:
        best: State of the student at its best epoch.
        curve: One row per epoch, the untrained start (epoch 0) first: ``epoch``, ``loss`` (mean over the epoch; None
            for the start), ``learning_rate`` (of its last step), ``score``, and ``best``.
        ended: Why it ended, in words.
        trouble: What broke it off, where something did.
        resumed: The epoch and step that a checkpoint was found for.
    """

    best: dict[str, torch.Tensor]
    curve: list[dict[str, Any]] = field(default_factory=list)
    ended: str = "all epochs were trained"
    trouble: str = ""
    resumed: tuple[int, int] | None = None

    @property
    def best_epoch(self) -> int:
        """The epoch whose state ``best`` is."""
        return best_row(self.curve)["epoch"] if self.curve else 0


def best_row(curve: list[dict[str, Any]]) -> dict[str, Any]:
    """The earliest of the rows with the least value."""
    return min(curve, key=lambda row: float(row["value"]))
