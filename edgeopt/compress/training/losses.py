"""What is minimized: the task's loss, a callable of the user's, the distance to a teacher, or a blend."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F  # noqa: N812 - its name everywhere

from edgeopt.compress.training.features import feature_distance, without_points
from edgeopt.core.errors import RecipeError
from edgeopt.core.named import imported
from edgeopt.data.contract import Task
from edgeopt.recipes.training import Distillation, Training

__all__ = ["Loss", "TaskLoss", "find_loss", "has_loss"]

Outputs = Sequence[torch.Tensor]
TaskLoss = Callable[[Outputs, torch.Tensor | None], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """The loss of one batch.

    Attributes:
        name: ``task`` or the callable's, for error messages.
        task: None where only the teacher is followed.
        distillation: None where there is no teacher.
        classification: Whether the first output has one score per class on its last axis.
        points: How many features follow the outputs, the student's and the teacher's.
        feature_weight: What their mean distance is multiplied by, beside the rest.
    """

    name: str
    task: TaskLoss | None
    distillation: Distillation | None
    classification: bool
    points: int = 0
    feature_weight: float = 0.0

    def __call__(self, outputs: Outputs, targets: torch.Tensor | None, teacher: Outputs | None) -> torch.Tensor:
        """A scalar. Features follow the outputs, the student's and the teacher's.

        Raises:
            RecipeError: The user's callable raised, or returned no scalar tensor that depends on the outputs.
        """
        share = self.distillation.weight if self.distillation is not None else 0.0
        parts = []
        if self.points and teacher is not None:
            pairs = zip(outputs[-self.points :], teacher[-self.points :], strict=True)
            distance = torch.stack([feature_distance(mine, theirs) for mine, theirs in pairs]).mean()
            parts.append(self.feature_weight * distance)
            outputs, teacher = without_points(outputs, self.points), without_points(teacher, self.points)
        if self.task is not None and share < 1.0:
            parts.append((1.0 - share) * self._own(self.task, outputs, targets))
        if self.distillation is not None and teacher is not None:
            share = share if self.task is not None else 1.0
            parts.append(share * _distance(outputs, teacher, self.distillation.temperature, self.classification))
        return torch.stack(parts).sum()

    def _own(self, task: TaskLoss, outputs: Outputs, targets: torch.Tensor | None) -> torch.Tensor:
        try:
            value = task(outputs, targets)
        except Exception as error:
            if self.name == "task":
                raise
            raise RecipeError(
                f"The loss {self.name} raised.",
                got=f"{type(error).__name__}: {error}",
                fix="It is called with the outputs, a tuple of tensors, and the targets [N, …] (labels: int64 [N]) or None.",
            ) from error
        if not isinstance(value, torch.Tensor) or value.numel() != 1:
            got = f"a tensor {list(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__
            raise RecipeError(
                f"The loss {self.name} does not return a scalar.", got=got, fix="Return a tensor with one element."
            )
        if not value.requires_grad:
            raise RecipeError(
                f"The loss {self.name} does not depend on the model's outputs.",
                got="a tensor without a gradient",
                fix="Compute it from the outputs with torch, and do not detach them.",
            )
        return value.reshape(())


def has_loss(task: Task) -> bool:
    """Whether ``loss: task`` means something for it."""
    return task in _LOSSES


def find_loss(config: Training, *, task: Task) -> Loss:
    """The loss that a recipe means.

    Args:
        task: Of the data. Its own loss is cross-entropy (classification; segmentation: over all pixels that count) or
            the mean squared error (regression, embedding).

    Raises:
        RecipeError: The callable cannot be imported; or the task has no loss of its own, and there is neither a callable
            nor a teacher.
    """
    own: TaskLoss | None = imported(config.loss) if config.loss != "task" else _LOSSES.get(task)
    if own is None and config.distillation is None:
        reason = "the data has no labels" if task == "unlabelled" else f"the task {task} has no loss of its own here"
        raise RecipeError(
            f"There is nothing to train on: {reason}, and the recipe has neither a teacher nor a loss.",
            got="training.loss: task, training.distillation: null",
            fix="Give labels, set training.distillation, or name a loss (package.module:callable).",
        )
    return Loss(name=config.loss, task=own, distillation=config.distillation, classification=task == "classification")


def _cross_entropy(outputs: Outputs, targets: torch.Tensor | None) -> torch.Tensor:
    scores = outputs[0].float()
    return F.cross_entropy(scores.reshape(-1, scores.shape[-1]), _there(targets).reshape(-1))


def _squared_error(outputs: Outputs, targets: torch.Tensor | None) -> torch.Tensor:
    return F.mse_loss(outputs[0].float(), _there(targets).float().reshape(outputs[0].shape))


def _pixel_cross_entropy(outputs: Outputs, targets: torch.Tensor | None) -> torch.Tensor:
    """Mean over the pixels that count; 0, with a gradient of 0, where none does."""
    pixels = _there(targets)
    total = F.cross_entropy(outputs[0].float(), pixels, ignore_index=-1, reduction="sum")
    return total / (pixels != -1).sum().clamp_min(1)


def _there(targets: torch.Tensor | None) -> torch.Tensor:
    if targets is None:
        raise TypeError("find_loss takes this only where there are targets")
    return targets


_LOSSES: dict[Task, TaskLoss] = {
    "classification": _cross_entropy,
    "regression": _squared_error,
    "embedding": _squared_error,
    "segmentation": _pixel_cross_entropy,
}


def _distance(outputs: Outputs, teacher: Outputs, temperature: float, classification: bool) -> torch.Tensor:
    """Classifiers: T² · KL(teacher ‖ student) of the first output. Else: squared error over the teacher's power."""
    if classification:
        mine = F.log_softmax(outputs[0].float() / temperature, -1).flatten(0, -2)
        theirs = F.log_softmax(teacher[0].float() / temperature, -1).flatten(0, -2)
        return temperature**2 * F.kl_div(mine, theirs, reduction="batchmean", log_target=True)
    pairs = [(a.float(), b.float()) for a, b in zip(outputs, teacher, strict=True) if b.is_floating_point()]
    noise = torch.stack([(a - b).square().sum() for a, b in pairs]).sum()
    power = torch.stack([b.square().sum() for _, b in pairs]).sum()
    return noise / power.clamp_min(torch.finfo(torch.float32).tiny)
