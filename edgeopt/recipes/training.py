"""How a model is trained, as data: the one loop that quantization-aware training, fine-tuning and distillation share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Distillation", "FreezeAfter", "Training"]

_LOSS = r"^(task|[A-Za-z_][\w.]*:[A-Za-z_][\w.]*)$"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FreezeAfter(_Frozen):
    """How many epochs something still moves."""

    freeze_after: Annotated[int, Field(ge=0)]


class Distillation(_Frozen):
    """Learning from the FP32 model's outputs (Hinton et al. 2015, "Distilling the Knowledge in a Neural Network").

    Attributes:
        weight: Share of the teacher in the loss: (1 − weight) · loss + weight · temperature² · KL(teacher ‖ student).
        temperature: Both softmaxes' logits are divided by it.
    """

    weight: Annotated[float, Field(gt=0, le=1)]
    temperature: Annotated[float, Field(gt=0)]


class Training(_Frozen):
    """One training. What decides the outcome has no default.

    Attributes:
        epochs: Passes over the train split.
        batch_size: Samples per step, over all devices; a program with a static batch is fed its own.
        learning_rate: The largest; reached after the warm-up.
        warmup_epochs: It rises linearly from zero over so many epochs; less than ``epochs``, fractions allowed.
        schedule: After the warm-up: ``cosine`` falls to zero at the last step; ``constant`` stays.
        weight_decay: Of weights with two or more axes; biases, norms and step sizes have none.
        clip_norm: Gradients are scaled down to this global norm; null: never.
        loss: ``task`` (classification and segmentation: cross-entropy; regression and embedding: mean squared error), or
            ``package.module:callable``, called with the outputs (a tuple of tensors) and the targets ([N, …]: labels and
            masks int64, others float32; or None), which returns a scalar.
        distillation: The FP32 model as the teacher; null: none.
        precision: As Fabric names it; refused where the device has none of it.
        accelerator: Where it computes.
        devices: How many devices, or processes on the CPU.
        patience: Ends after so many epochs without a better score on the tuning split; null: never. The best epoch is
            kept in any case, never the last by accident.
        max_minutes: Ends with the first epoch that is over this; null: no limit. Such a run cannot be repeated exactly.
    """

    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    optimizer: Literal["sgd", "adamw"]
    learning_rate: Annotated[float, Field(gt=0)]
    warmup_epochs: Annotated[float, Field(ge=0)]
    schedule: Literal["cosine", "constant"]
    weight_decay: Annotated[float, Field(ge=0)]
    clip_norm: Annotated[float, Field(gt=0)] | None
    loss: Annotated[str, Field(pattern=_LOSS)]
    distillation: Distillation | None
    precision: Literal["32-true", "bf16-mixed", "16-mixed"]
    accelerator: Literal["cpu", "cuda"] = "cpu"
    devices: Annotated[int, Field(ge=1)] = 1
    patience: Annotated[int, Field(ge=1)] | None
    max_minutes: Annotated[float, Field(gt=0)] | None = None
