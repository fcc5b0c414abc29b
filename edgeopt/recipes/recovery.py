"""Training of the float model, as data: what brings back the accuracy that an earlier step cost."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgeopt.recipes.training import FreezeAfter, Training

__all__ = ["Distil", "Finetune"]


class Finetune(BaseModel):
    """Training of the float model, after it was pruned or before it is quantized; with a teacher it is distillation.

    Attributes:
        batchnorm: ``frozen``: running statistics are neither used up nor changed. Else batch statistics for so many
            epochs.
        training: The loop.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    batchnorm: Literal["frozen"] | FreezeAfter
    training: Training


class Distil(Finetune):
    """Training of the float model by the original FP32 model: by its outputs and, where wanted, on the way to them.

    Attributes:
        features: Shell patterns of layer or module names; the outputs of each that the student has too are drawn
            towards the teacher's. Channels that were pruned do not matter.
        feature_weight: What the features' mean distance is multiplied by, beside the loss of ``training``.
    """

    features: tuple[str, ...] = ()
    feature_weight: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _has_a_teacher(self) -> Self:
        if self.training.distillation is None:
            raise ValueError("distil is taught: set training.distillation (weight, temperature), or use finetune")
        if bool(self.features) != (self.feature_weight is not None):
            raise ValueError("features and feature_weight go together: give both, or neither")
        return self
