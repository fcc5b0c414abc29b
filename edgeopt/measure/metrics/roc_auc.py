"""Area under the ROC curve."""

from __future__ import annotations

import numpy as np

from edgeopt.measure.metrics.ranking import RankingMetric, Steps

__all__ = ["RocAuc"]


class RocAuc(RankingMetric):
    """Chance that a sample of a class has a higher probability of it than one of another; one class against the rest."""

    name = "roc_auc_pct"

    def _of_class(self, steps: Steps) -> float:
        right = np.cumsum(steps.own)
        wrong = steps.total - right[-1]
        if right[-1] == 0 or wrong <= 0:
            return float("nan")
        after = wrong - (steps.through - right)  # of all others: those of the same place count half
        return float(np.dot(steps.own, after + 0.5 * steps.others) / (right[-1] * wrong))
