"""Cosine similarity of embeddings."""

from __future__ import annotations

from typing import Literal

import numpy as np

from edgeopt.bundle.outcomes import Samples
from edgeopt.measure.metrics.regression import per_sample

__all__ = ["Cosine"]


class Cosine:
    """Mean cosine between each sample's embedding and the wanted one; 0 where one of them is zero everywhere."""

    name = "cosine"
    unit = "1"
    better: Literal["higher", "lower"] = "higher"
    tasks = frozenset({"embedding"})
    mean = True
    scale = 1.0

    def samples(self, outputs: np.ndarray, targets: np.ndarray) -> Samples:
        """Keep each sample's cosine, float64 [N]; both arguments [N, D]."""
        rows, wanted = per_sample(outputs, targets, self.name)
        lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(wanted, axis=1)
        return {"value": np.divide((rows * wanted).sum(axis=1), lengths, out=np.zeros(len(rows)), where=lengths > 0)}

    def value(self, samples: Samples, weights: np.ndarray | None = None) -> float:
        """In [-1, 1]."""
        return float(np.average(samples["value"], weights=weights))
