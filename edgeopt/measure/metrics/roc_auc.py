"""Area under the ROC curve."""

from __future__ import annotations

import numpy as np

from edgeopt.measure.metrics.ranking import RankingMetric, steps

__all__ = ["RocAuc"]


class RocAuc(RankingMetric):
    """Chance that a sample of a class has a higher probability of it than one of another; one class against the rest."""

    name = "roc_auc_pct"

    def _of_class(self, place: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> float:
        right, wrong = (np.concatenate([[0.0], part]) for part in steps(place, positive, weights))
        if right[-1] == 0 or wrong[-1] == 0:
            return float("nan")
        return float(np.trapezoid(right, wrong) / (right[-1] * wrong[-1]))
