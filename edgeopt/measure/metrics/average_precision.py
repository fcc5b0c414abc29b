"""Average precision."""

from __future__ import annotations

import numpy as np

from edgeopt.measure.metrics.ranking import RankingMetric, Steps

__all__ = ["AveragePrecision"]


class AveragePrecision(RankingMetric):
    """Precision at each score, weighted by the recall it adds; one class against the rest."""

    name = "average_precision_pct"

    def _of_class(self, steps: Steps) -> float:
        right = np.cumsum(steps.own)
        if right[-1] == 0:
            return float("nan")
        precision = np.divide(right, steps.through, out=np.zeros_like(right), where=steps.through > 0)
        return float(np.dot(steps.own, precision) / right[-1])
