"""The train split in a seeded order, a batch at a time: the order of an epoch depends on seed and epoch alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from edgeopt.compress.calibrate import Feed
from edgeopt.data.contract import Split

__all__ = ["TrainingBatches", "target_tensor"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingBatches:
    """Batches for one of several equal processes.

    What does not fill a batch at an epoch's end is left out of that epoch, as its samples would weigh more than others;
    the next epoch's order leaves out others.

    Attributes:
        split: The train split, read sample by sample: memory is constant.
        feed: Says how a batch is checked against the model's inputs, and its size where the program is static.
        size: Samples per step in this process.
        seed: Of the order.
        rank: Which process this is, of ``processes``.
    """

    split: Split
    feed: Feed
    size: int
    seed: int
    rank: int = 0
    processes: int = 1

    @property
    def steps(self) -> int:
        """Batches per epoch."""
        return len(self.split) // (self.size * self.processes)

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[list[torch.Tensor], torch.Tensor | None]]:
        """Flat inputs and targets [N, …] (whole numbers as int64, others as float32) of each step from ``start`` on.

        Raises:
            DataError: A batch does not fit the model's inputs.
        """
        order = np.random.default_rng([self.seed, number]).permutation(len(self.split))
        for step in range(start, self.steps):
            first = (step * self.processes + self.rank) * self.size
            batch = self.split.source.read(self.split.indices[order[first : first + self.size]].tolist())
            yield self.feed.tensors(batch), None if batch.targets is None else target_tensor(batch.targets)


def target_tensor(targets: np.ndarray) -> torch.Tensor:
    """Targets as losses take them: whole numbers as int64, others as float32."""
    return torch.from_numpy(targets.astype(np.int64 if targets.dtype.kind in "iu" else np.float32))
