"""How a model is pruned, as data."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edgeopt.recipes.training import FreezeAfter, Training

__all__ = ["Importance", "Prune"]

Importance = Literal["l1", "l2", "bn_scale", "taylor", "random"]

_Share = Annotated[float, Field(gt=0, lt=1)]


class Prune(BaseModel):
    """Structured pruning: whole channels, heads and hidden units go, in every layer that shares them.

    One of ``ratio``, ``macs_ratio``, ``latency_ratio`` and ``widths`` says how much.

    Attributes:
        importance: What a unit is worth. ``l1``, ``l2``: the magnitude of all weights that go with it; ``bn_scale``: of
            its BatchNorm's scale; ``taylor``: the squared first-order change of the loss without it, on ``samples``;
            ``random``: a control. All but ``taylor`` are divided by their mean over the unit's group.
        ratio: Share of the units that go.
        macs_ratio: Multiply-accumulates that are left, over those of the model as it came.
        latency_ratio: Latency that is left, over that of the model as it came, measured on the device: a search turns it
            into ``widths``.
        widths: By group: how many units stay; 0 where its residual branch is to go as a whole. A search writes its outcome here, so that it can be repeated.
        scope: ``global``: the least important units of the whole model go; ``uniform``: the same share of every group.
        round_to: What a group's width is kept a multiple of, where it was one; ``auto``: what the target's kernels work in.
        floor: Share of every group that stays.
        branches: Whether a search by latency may take a residual branch out as a whole: x + f(x) becomes x.
        skip: Shell patterns of layer names whose outputs stay.
        samples: For ``taylor``: how many samples of the train split (without one: of the calibration split) are read.
        rounds: Pruning in so many steps, with ``training`` after each but the last, whose recovery is a step of its own.
        training: Between the rounds.
        batchnorm: Likewise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    importance: Importance
    ratio: _Share | None = None
    macs_ratio: _Share | None = None
    latency_ratio: _Share | None = None
    widths: dict[str, Annotated[int, Field(ge=0)]] | None = None
    scope: Literal["global", "uniform"] = "global"
    round_to: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    floor: Annotated[float, Field(ge=0, lt=1)] = 0.1
    branches: bool = True
    skip: tuple[str, ...] = ()
    samples: Annotated[int, Field(ge=1)] = 1024
    rounds: Annotated[int, Field(ge=1)] = 1
    training: Training | None = None
    batchnorm: Literal["frozen"] | FreezeAfter = "frozen"

    @model_validator(mode="after")
    def _check_whole(self) -> Self:
        given = [name for name in ("ratio", "macs_ratio", "latency_ratio", "widths") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"give exactly one of ratio, macs_ratio, latency_ratio and widths; there is {', '.join(given) or 'none'}"
            )
        if (self.rounds > 1) != (self.training is not None):
            raise ValueError("training belongs between rounds: give it exactly where there are two rounds or more")
        return self
