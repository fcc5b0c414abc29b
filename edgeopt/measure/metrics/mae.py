"""Mean absolute error."""

from __future__ import annotations

import numpy as np

from edgeopt.bundle.outcomes import Samples
from edgeopt.measure.metrics.base import MeanMetric
from edgeopt.measure.metrics.regression import per_sample

__all__ = ["MeanAbsoluteError"]


class MeanAbsoluteError(MeanMetric):
    """Mean of |output - target|, in the target's own unit."""

    name = "mae"
    tasks = frozenset({"regression"})

    def samples(self, outputs: np.ndarray, targets: np.ndarray) -> Samples:
        """Keep each sample's error, float64 [N]; both arguments [N, …]."""
        rows, wanted = per_sample(outputs, targets, self.name)
        return {"value": np.abs(rows - wanted).mean(axis=1)}
