"""Cosine similarity of embeddings."""

from __future__ import annotations

from typing import Literal

import numpy as np

from edgeopt.bundle.outcomes import Samples
from edgeopt.measure.metrics.base import MeanMetric
from edgeopt.measure.metrics.regression import per_sample

__all__ = ["Cosine"]


class Cosine(MeanMetric):
    """Mean cosine between each sample's embedding and the wanted one; 0 where one of them is zero everywhere."""

    name = "cosine"
    unit = "1"
    better: Literal["higher", "lower"] = "higher"
    tasks = frozenset({"embedding"})

    def samples(self, outputs: np.ndarray, targets: np.ndarray) -> Samples:
        """Keep each sample's cosine, float64 [N]; both arguments [N, D]."""
        rows, wanted = per_sample(outputs, targets, self.name)
        lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(wanted, axis=1)
        return {"value": np.divide((rows * wanted).sum(axis=1), lengths, out=np.zeros(len(rows)), where=lengths > 0)}
