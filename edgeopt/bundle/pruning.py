"""The part of the report that tells a search for channel counts on the device."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from edgeopt.core.measurement import Measurement

__all__ = ["CurveRow", "PruningSection", "StairPoint"]


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
