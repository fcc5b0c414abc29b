"""Root of the mean squared error."""

from __future__ import annotations

import numpy as np

from edgeopt.bundle.outcomes import Samples
from edgeopt.measure.metrics.regression import RegressionMetric, per_sample

__all__ = ["RootMeanSquaredError"]


class RootMeanSquaredError(RegressionMetric):
    """Root of the mean of (output - target)², in the target's own unit."""

    name = "rmse"

    def samples(self, outputs: np.ndarray, targets: np.ndarray) -> Samples:
        """Keep each sample's mean squared error, float64 [N]; both arguments [N, …]."""
        rows, wanted = per_sample(outputs, targets, self.name)
        return {"squared": ((rows - wanted) ** 2).mean(axis=1)}

    def value(self, samples: Samples, weights: np.ndarray | None = None) -> float:
        """In the target's unit."""
        return float(np.sqrt(np.average(samples["squared"], weights=weights)))
