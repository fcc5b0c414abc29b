"""Pearson's correlation of embeddings."""

from __future__ import annotations

from typing import Literal

import numpy as np

from edgeopt.bundle.outcomes import Samples
from edgeopt.measure.metrics.regression import per_sample

__all__ = ["Pearson"]


class Pearson:
    """Correlation over all values of all samples, outputs against targets."""

    name = "pearson"
    unit = "1"
    better: Literal["higher", "lower"] = "higher"
    tasks = frozenset({"embedding", "regression"})
    mean = False
    scale = 1.0

    def samples(self, outputs: np.ndarray, targets: np.ndarray) -> Samples:
        """Keep each sample's sums, float64 [N, 6]: count, x, y, x², y², xy; both arguments [N, …]."""
        x, y = per_sample(outputs, targets, self.name)
        x, y = x - x.mean(), y - y.mean()  # the correlation stays, and large means cost no digits
        sums = [np.full(len(x), float(x.shape[1])), *(part.sum(axis=1) for part in (x, y, x * x, y * y, x * y))]
        return {"sums": np.stack(sums, axis=1)}

    def value(self, samples: Samples, weights: np.ndarray | None = None) -> float:
        """In [-1, 1]; NaN where one side does not vary."""
        n, x, y, xx, yy, xy = np.average(samples["sums"], axis=0, weights=weights)
        spread = (xx - x * x / n) * (yy - y * y / n)
        return float((xy - x * y / n) / np.sqrt(spread)) if spread > 0 else float("nan")
