"""The parts of the report that tell of pruning: the search for channel counts on the device, and what a step took away."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from edgeopt.core.measurement import Measurement

__all__ = ["CurveRow", "PinnedLayer", "PrunedRow", "PrunedSection", "PruningSection", "StairPoint"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StairPoint(_Frozen):
    """One group with some of its units left, all others whole.

    Attributes:
        kept: Units that stay; 0: its residual branch is gone.
        latency: ``latency_ratio``: p50 over the whole model's, the same runtime, interleaved.
        divergence: From the whole model's outputs, on the tuning split, nothing trained.
    """

    kept: int
    latency: Measurement
    divergence: Measurement


class CurveRow(_Frozen):
    """Channels against latency, of one group.

    Attributes:
        layers: That make its channels.
        units: How many there are: channels, or heads.
        width: In channels.
        points: Descending.
        chosen: How many units stay in the outcome; None where none held.
    """

    name: str
    layers: tuple[str, ...]
    units: int
    width: int
    points: tuple[StairPoint, ...]
    chosen: int | None = None


class PruningSection(_Frozen):
    """The search.

    Attributes:
        runtime: What was timed on, the fastest of the target's; ``precision``: what its graphs computed in.
        wanted: ``latency_ratio`` of the recipe.
        curves: One per group.
        predicted: Of the outcome: the product of its groups' ratios.
        measured: Of the outcome, as a whole model.
        summary: In one sentence.
    """

    runtime: str
    precision: str
    wanted: float
    curves: tuple[CurveRow, ...]
    predicted: float
    measured: Measurement
    summary: str


class PinnedLayer(_Frozen):
    """A layer of which nothing can be removed, and why."""

    name: str
    reason: str


class PrunedRow(_Frozen):
    """What a prune step left of a group.

    Attributes:
        layers: That make its channels.
        units: How many there were: channels, or heads; ``kept``: how many are left; 0: its residual branch is gone.
        width: In channels, before; ``width_kept``: after.
    """

    name: str
    layers: tuple[str, ...]
    units: int
    kept: int
    width: int
    width_kept: int


class PrunedSection(_Frozen):
    """What a prune step did.

    Attributes:
        step: The recipe's.
        macs: Multiply-accumulates per sample before; ``macs_kept``: after. Counted, not measured.
        groups: In the graph's order, those that stay whole too.
        pinned: Layers of which nothing can be removed.
    """

    step: str
    macs: int
    macs_kept: int
    groups: tuple[PrunedRow, ...]
    pinned: tuple[PinnedLayer, ...]
