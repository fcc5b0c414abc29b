"""Coefficient of determination."""

from __future__ import annotations

from typing import Literal

import numpy as np

from edgeopt.bundle.outcomes import Samples
from edgeopt.measure.metrics.regression import RegressionMetric, per_sample

__all__ = ["RSquared"]


class RSquared(RegressionMetric):
    """1 - Σ(output - target)² / Σ(target - mean)², the mean over the outputs' dimensions."""

    name = "r2"
    better: Literal["higher", "lower"] = "higher"

    def samples(self, outputs: np.ndarray, targets: np.ndarray) -> Samples:
        """Keep squared errors and targets, float64 [N, D]; both arguments [N, …]."""
        rows, wanted = per_sample(outputs, targets, self.name)
        return {"squared": (rows - wanted) ** 2, "target": wanted}

    def value(self, samples: Samples, weights: np.ndarray | None = None) -> float:
        """At most 1; NaN where the targets do not vary."""
        target = samples["target"]
        weights = np.ones(len(target)) if weights is None else weights
        centre = np.average(target, axis=0, weights=weights)
        spread = np.average((target - centre) ** 2, axis=0, weights=weights)
        if np.any(spread == 0):
            return float("nan")
        return float(np.mean(1.0 - np.average(samples["squared"], axis=0, weights=weights) / spread))
