"""A model on disk, as stages hand it on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from edgeopt.model.store import load_program
from edgeopt.model.trained import TrainedModel

__all__ = ["Loaded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model's facts, and the folder that holds its program (read only when a stage must be made).

    Attributes:
        stage: What a float step made of it, e.g. ``pruned``; empty for the model as it came.
        original: The model as it came, where a step changed it.
    """

    model: TrainedModel
    directory: Path
    stage: str = ""
    original: Loaded | None = None

    def opened(self) -> TrainedModel:
        """With its program."""
        return replace(self.model, program=load_program(self.directory), onnx_path=None)

    @property
    def name(self) -> str:
        """``fp32``, or ``fp32-pruned``."""
        return f"fp32-{self.stage}" if self.stage else "fp32"

    @property
    def whose(self) -> str:
        """Whose outputs its program's are, for the report."""
        return f"PyTorch FP32 ({self.stage})" if self.stage else "PyTorch FP32"
