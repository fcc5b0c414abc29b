"""Top-k accuracy of a classifier."""

from __future__ import annotations

from typing import Literal

import numpy as np

from edgeopt.bundle.outcomes import Samples
from edgeopt.measure.metrics.base import MeanMetric
from edgeopt.measure.metrics.scores import by_rows, predictions

__all__ = ["TopFive", "TopOne"]


class TopOne(MeanMetric):
    """Share of the samples whose highest score is that of their class; among equal scores the lowest class counts."""

    name = "accuracy_top1_pct"
    unit = "%"
    better: Literal["higher", "lower"] = "higher"
    tasks = frozenset({"classification"})
    scale = 100.0

    def samples(self, outputs: np.ndarray, targets: np.ndarray) -> Samples:
        """Keep whether each sample is right.

        Args:
            outputs: Scores [N, C].
            targets: Class indices, int [N].
        """
        return {"value": predictions(outputs) == targets}


class TopFive(TopOne):
    """Share of the samples whose class is among the five highest scores; among equal scores the lower class is higher."""

    name = "accuracy_top5_pct"

    def samples(self, outputs: np.ndarray, targets: np.ndarray) -> Samples:
        """As ``TopOne``."""

        def among(rows: np.ndarray, start: int) -> np.ndarray:
            right = targets[start : start + len(rows)]
            own = rows[np.arange(len(rows)), right][:, None]
            before = np.arange(rows.shape[1])[None, :] < right[:, None]
            found: np.ndarray = np.sum((rows > own) | ((rows == own) & before), axis=1) < 5
            return found

        return {"value": by_rows(outputs, among)}
