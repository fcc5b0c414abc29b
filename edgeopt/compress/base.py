"""What every step of this room takes and gives. Needs no torch: a recipe is checked before torch is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edgeopt.bundle.document import PrunedSection, TrainingSection, TrialRow
from edgeopt.core.events import Event, ProgressListener
from edgeopt.data.contract import Dataset
from edgeopt.model.trained import TrainedModel
from edgeopt.recipes.schema import LayerPrecision, Recipe
from edgeopt.targets.schema import Target

__all__ = ["CUT_SHORT", "Answers", "LayerDecision", "Step", "StepContext", "StepResult"]

CUT_SHORT = "the time limit of the whole run"  # why a training ended that a later run is to go on with


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerDecision:
    """What became of one layer, and why.

    Attributes:
        name: As the user knows it: the module's path where there is one, else the graph node. Unique in the model.
        op: What it computes: ``conv``, ``linear``, ``matmul``, ``add``, ``conv_transpose``, ``recurrent``, …
        precision: What it computes in from now on.
        reason: Why, in one phrase.
        node: The fx node of the returned program that computes it.
    """

    name: str
    op: str
    precision: LayerPrecision
    reason: str
    node: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What a model answers to some samples.

    Attributes:
        inputs: One array [N, …] per input of the model, in order.
        outputs: One array per output; [N, …] where it has the batch first.
    """

    inputs: tuple[np.ndarray, ...]
    outputs: tuple[np.ndarray, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepContext:
    """What a step may read beside the model.

    Attributes:
        data: None where the user gave none.
        target: What the model is compressed for.
        seed: Of everything random in the step; the process's own generators are left as they were.
        progress: Told how far a long stage is.
        workspace: A folder for what a long step needs to go on where a killed run stopped; None: it starts anew.
        deadline: When a step that can end early is to do so, seconds of ``time.monotonic``; None: never.
        original: The model before the recipe's first step, with its program: the teacher of every training, and what its
            scores are held against, however the steps between changed the model. It may have another architecture; its
            inputs and outputs are the model's. None: the model that comes in is the original.
        answers: What the model that comes in answers to the first samples of the tuning split; None: not known yet.
    """

    data: Dataset | None
    target: Target
    seed: int
    progress: ProgressListener
    workspace: Path | None = None
    deadline: float | None = None
    original: TrainedModel | None = None
    answers: Answers | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What a step made.

    Attributes:
        model: The new model; the one that came in is unchanged.
        decisions: One per layer the step judged, in the order of the graph.
        ranges: Calibrated (low, high) of every quantized activation, in the activation's own unit, before it was
            made symmetric; keyed by the fx name of its ``quantize_per_tensor`` node in ``model.program``.
        events: What a reader of the report must know.
        stats: Figures for the report, JSON values.
        training: How the training went, where there was one.
        trials: What each technique brought.
        pruned: What a prune step took away.
    """

    model: TrainedModel
    decisions: tuple[LayerDecision, ...] = ()
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    events: tuple[Event, ...] = ()
    stats: Mapping[str, float | int | str] = field(default_factory=dict)
    training: tuple[TrainingSection, ...] = ()
    trials: tuple[TrialRow, ...] = ()
    pruned: PrunedSection | None = None


class Step(Protocol):
    """One optimization. ``config`` is the step's model of ``recipes/schema.py``."""

    def check(self, config: Any, recipe: Recipe, target: Target, has_data: bool) -> None:
        """Refuse what cannot work, before any work starts. Pure; imports no torch.

        Raises:
            RecipeError: The recipe asks for what the target, the data or the other steps rule out.
        """
        ...

    def run(self, model: TrainedModel, config: Any, context: StepContext) -> StepResult:
        """Do it. ``model`` is not mutated.

        Raises:
            RecipeError: The model is of a form that this step cannot take, or a name in ``config`` matches nothing.
            DataError: The data does not fit the model.
        """
        ...
