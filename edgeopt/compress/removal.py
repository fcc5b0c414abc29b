"""What removing units of a group costs in accuracy: their weights at zero, nothing trained, nothing exported."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch.export import ExportedProgram
from torch.fx import GraphModule

from edgeopt.compress.calibrate import Feed
from edgeopt.compress.pruning.channels import ChannelGroup, Pinned, trace_channels
from edgeopt.compress.pruning.importance import score_units
from edgeopt.compress.pruning.mask import masked
from edgeopt.compress.score import Judge, Score
from edgeopt.core.errors import DataError
from edgeopt.data.contract import Split
from edgeopt.model.trained import TrainedModel
from edgeopt.recipes.pruning import Importance

__all__ = ["BATCH", "Removal", "RemovalJudge", "RemovalTrials", "units_at"]

BATCH = 64
"""Samples that run at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """One group with some of its units at zero.

    Attributes:
        ratio: As it was asked for.
        removed: How many units that is.
        score: Against the model as it is.
    """

    group: str
    ratio: float
    removed: int
    score: Score


class RemovalTrials:
    """A program whose groups can lose units.

    Args:
        model: Not changed.
        program: Its program.

    Attributes:
        groups: What can be removed, in the graph's order.
        pinned: What cannot, and why.
    """

    groups: tuple[ChannelGroup, ...]
    pinned: tuple[Pinned, ...]

    def __init__(self, model: TrainedModel, program: ExportedProgram) -> None:
        self.model, self.program = model, program
        self.channels = trace_channels(program)
        self.groups, self.pinned = self.channels.groups, self.channels.pinned


class RemovalJudge:
    """Scores what is left of a model against the model as it is.

    Args:
        trials: The model and its groups.
        split: What scores are taken on.
        learn_from: What ``taylor`` reads: not what it is judged on.
        importance: What says which units go first.
        samples: How many of the split, at most.
        classification: Whether the first output has one score per class on its last axis.
        seed: For ``random``.

    Attributes:
        reference: The model as it is.

    Raises:
        DataError: The data does not fit the model, or the model makes NaN of it.
    """

    def __init__(
        self,
        trials: RemovalTrials,
        split: Split,
        *,
        learn_from: Split,
        importance: Importance,
        samples: int,
        classification: bool,
        seed: int,
    ) -> None:
        feed = Feed.of(trials.model, trials.program, split, samples, BATCH)
        self._channels = trials.channels
        self._judge = Judge(trials.channels.model, feed, classification=classification)
        self.reference = self._judge.score(trials.channels.model)
        if not np.isfinite(self.reference.divergence):
            raise DataError(
                "The model's outputs on the data are NaN, infinite or all zero: nothing can be held against them.",
                got=f"{self.reference.n} samples of the {split.name} split",
                fix="Check the model's weights and that the data is preprocessed as in training.",
            )
        self._scores = score_units(
            trials.channels,
            importance,
            seed=seed,
            feed=Feed.of(trials.model, trials.program, learn_from, samples, BATCH) if importance == "taylor" else None,
            classification=classification,
        )

    def removals(self, group: ChannelGroup, ratios: Sequence[float]) -> Iterator[Removal]:
        """One group at each ratio, its least important units at zero; nothing of a group with a single unit."""
        order = np.argsort(np.asarray(self._scores[group.name]), kind="stable")
        known: dict[int, Score] = {}
        for ratio in ratios:
            count = units_at(ratio, group.units)
            if count and count not in known:
                known[count] = self._judge.score(self._without({group.name: order[:count].tolist()}))
            if count:
                yield Removal(group=group.name, ratio=ratio, removed=count, score=known[count])

    def _without(self, removed: Mapping[str, Sequence[int]]) -> GraphModule:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)
            return masked(self._channels, removed)


def units_at(ratio: float, units: int) -> int:
    """How many of so many units are a share of them: the nearest number, at least one, and never all.

    >>> [units_at(0.25, units) for units in (1, 2, 3, 10, 16)]
    [0, 1, 1, 3, 4]
    """
    return min(max(1, int(ratio * units + 0.5)), units - 1)
