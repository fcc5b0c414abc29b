"""Mean absolute error."""

from __future__ import annotations

import numpy as np

from edgeopt.bundle.outcomes import Samples
from edgeopt.measure.metrics.regression import RegressionMetric, per_sample

__all__ = ["MeanAbsoluteError"]


class MeanAbsoluteError(RegressionMetric):
    """Mean of |output - target|, in the target's own unit."""

    name = "mae"
    mean = True

    def samples(self, outputs: np.ndarray, targets: np.ndarray) -> Samples:
        """Keep each sample's error, float64 [N]; both arguments [N, …]."""
        rows, wanted = per_sample(outputs, targets, self.name)
        return {"value": np.abs(rows - wanted).mean(axis=1)}

    def value(self, samples: Samples, weights: np.ndarray | None = None) -> float:
        """In the target's unit."""
        return float(np.average(samples["value"], weights=weights))
