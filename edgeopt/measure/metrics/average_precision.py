"""Average precision."""

from __future__ import annotations

import numpy as np

from edgeopt.measure.metrics.ranking import RankingMetric, steps

__all__ = ["AveragePrecision"]


class AveragePrecision(RankingMetric):
    """Precision at each score, weighted by the recall it adds; one class against the rest."""

    name = "average_precision_pct"

    def _of_class(self, place: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> float:
        right, wrong = steps(place, positive, weights)
        if right[-1] == 0:
            return float("nan")
        named = right + wrong
        precision = np.divide(right, named, out=np.zeros_like(right), where=named > 0)
        return float(np.sum(np.diff(right, prepend=0.0) * precision) / right[-1])
