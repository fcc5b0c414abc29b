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
from edgeopt.core.events import Progress, ProgressListener
from edgeopt.data.contract import Split
from edgeopt.model.trained import TrainedModel
from edgeopt.recipes.pruning import Importance

__all__ = ["BATCH", "Removal", "RemovalTrials", "units_at"]

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
        self._model, self._program = model, program
        self._channels = trace_channels(program)
        self.groups, self.pinned = self._channels.groups, self._channels.pinned

    def measure(
        self,
        split: Split,
        ratios: Sequence[float],
        *,
        importance: Importance,
        samples: int,
        classification: bool,
        seed: int,
        progress: ProgressListener,
    ) -> tuple[Score, Iterator[Removal]]:
        """The model as it is, and each group alone at each ratio, its least important units gone.

        Args:
            split: What scores are taken on; ``taylor`` reads it too.
            ratios: Shares of a group's units, in (0, 1).
            importance: What says which units go first.
            samples: How many of the split.
            classification: Whether the first output has one score per class on its last axis.
            seed: For ``random``.
            progress: Told of each trial.

        Raises:
            DataError: The data does not fit the model, or the model makes NaN of it.
        """
        feed = Feed.of(self._model, self._program, split, samples, BATCH)
        judge = Judge(self._channels.model, feed, classification=classification)
        reference = judge.score(self._channels.model)
        if not np.isfinite(reference.divergence):
            raise DataError(
                "The model's outputs on the data are NaN, infinite or all zero: nothing can be held against them.",
                got=f"{reference.n} samples of the {split.name} split",
                fix="Check the model's weights and that the data is preprocessed as in training.",
            )
        kind_feed = feed if importance == "taylor" else None
        scores = score_units(self._channels, importance, seed=seed, feed=kind_feed, classification=classification)

        def trials() -> Iterator[Removal]:
            total, done = len(self.groups) * len(ratios), 0
            for group in self.groups:
                order = np.argsort(np.asarray(scores[group.name]), kind="stable")
                known: dict[int, Score] = {0: reference}
                for ratio in ratios:
                    count = units_at(ratio, group.units)
                    if count not in known:
                        gone = {group.name: order[:count].tolist()}
                        known[count] = judge.score(self._without(gone))
                    done += 1
                    progress(Progress(stage="sensitivity", done=done, total=total))
                    if count:
                        yield Removal(group=group.name, ratio=ratio, removed=count, score=known[count])

        return reference, trials()

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
