"""What ``edgeopt analyze --json`` prints: a model's layers, its memory, and what could be removed from it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from edgeopt.bundle.document import ModelSection, PinnedLayer
from edgeopt.core.events import Event
from edgeopt.core.measurement import Measurement

__all__ = [
    "ANALYSIS_VERSION",
    "Analysis",
    "LayerCost",
    "LiveTensor",
    "MemorySection",
    "PinnedLayer",
    "PrunableGroup",
    "PruningSection",
    "Totals",
]

ANALYSIS_VERSION: Literal[1] = 1
"""Goes up whenever a reader of the old form would break."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LayerCost(_Frozen):
    """One op that computes something.

    Attributes:
        name: The module that computes it; with the op where that module computes several.
        op: As the graph calls it: ``conv2d``, ``batch_norm``, ``add_``; in an ONNX file ``Conv``.
        output_shape: Of its first output, at the sizes of the analysis.
        macs: Multiply-accumulates per sample; None where it multiplies nothing that is counted.
        parameters: Trained values that it is the first to read.
        weight_bytes: Of these, and of the buffers that it is the first to read.
        output_bytes: Of all its outputs.
        live_bytes: Of activations while it runs; None where the schedule was not followed.
    """

    name: str
    op: str
    output_shape: tuple[int, ...]
    macs: int | None
    parameters: int
    weight_bytes: int
    output_bytes: int
    live_bytes: int | None


class Totals(_Frozen):
    """Sums over the layers."""

    macs: int
    parameters: int
    weight_bytes: int
    output_bytes: int


class LiveTensor(_Frozen):
    """A piece of memory that is live at the peak, by the layer (or input) that made it."""

    name: str
    size_bytes: int


class MemorySection(_Frozen):
    """Activation memory over the graph's schedule.

    Attributes:
        peak_bytes: The most that is live during one layer.
        peak_layer: That layer; None where the inputs alone are the most.
        live: What is live then, the largest first.
        with_weights_bytes: The peak and all weights.
    """

    peak_bytes: int
    peak_layer: str | None
    live: tuple[LiveTensor, ...]
    with_weights_bytes: int


class PrunableGroup(_Frozen):
    """Units (channels, heads, hidden units) that can be removed one by one, each from all layers of the group.

    Attributes:
        name: The first layer that makes them, and how many more do.
        layers: All that make them.
        units: How many there are.
        width: Channels; a head of 16 channels is one unit and 16 of the width.
        exact: Whether removing a unit is the same as its being zero.
        figures: ``divergence``, ``agreement_pct``, ``drop_pp`` and so on with some of its units at zero, the least
            important first. Conditions: ``ratio`` of the units, ``removed`` how many that is.
    """

    name: str
    layers: tuple[str, ...]
    units: int
    width: int
    exact: bool
    figures: tuple[Measurement, ...]

    def figure(self, name: str, ratio: float) -> Measurement | None:
        """One figure at one ratio, if it was measured."""
        return next((m for m in self.figures if m.name == name and m.conditions.get("ratio") == ratio), None)


class PruningSection(_Frozen):
    """What can be removed, and what removing it would cost.

    Attributes:
        importance: What says which units go first.
        ratios: Shares of a group's units.
        split: What sensitivities are measured on; None where they are not, then ``reason`` says why.
    """

    importance: str
    ratios: tuple[float, ...]
    split: str | None
    reason: str | None
    groups: tuple[PrunableGroup, ...]
    pinned: tuple[PinnedLayer, ...]


class Analysis(_Frozen):
    """A model that was looked at, and not changed.

    Attributes:
        batch: Samples that shapes and bytes are of: 1, or the model's own where that is fixed.
        sizes: Of each open dimension, by name, as it was chosen.
        memory: None where the schedule was not followed.
        pruning: None where there is no PyTorch program.
    """

    schema_version: Literal[1] = ANALYSIS_VERSION
    edgeopt_version: str
    model: ModelSection
    batch: int
    sizes: dict[str, int]
    layers: tuple[LayerCost, ...]
    totals: Totals
    memory: MemorySection | None
    pruning: PruningSection | None
    events: tuple[Event, ...]
