"""Precision, recall and F1 from the counts of (class, prediction) pairs: what the metrics of that kind share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import numpy as np

from edgeopt.bundle.outcomes import Samples
from edgeopt.measure.metrics.scores import predictions

__all__ = ["ConfusionMetric", "Counts", "MicroMetric", "ratio"]


class Counts:
    """Weighted counts per class, float64 [C].

    Attributes:
        right: Of the class and predicted so; ``actual``: of the class; ``predicted``: predicted so.
        seen: Whether any sample is of the class or predicted so; the others are no part of a macro average.
    """

    def __init__(self, samples: Samples, weights: np.ndarray | None) -> None:
        label, predicted = samples["label"], samples["predicted"]
        classes = int(max(label.max(), predicted.max())) + 1
        weights = np.ones(len(label)) if weights is None else weights
        self.actual = np.bincount(label, weights, classes)
        self.predicted = np.bincount(predicted, weights, classes)
        self.right = np.bincount(label, weights * (label == predicted), classes)
        self.seen = (self.actual > 0) | (self.predicted > 0)


class ConfusionMetric(ABC):
    """A figure in percent of ``Counts``; a class whose figure is 0/0 counts as 0, as in scikit-learn."""

    name: str
    unit = "%"
    better: Literal["higher", "lower"] = "higher"
    tasks = frozenset({"classification"})
    mean = False
    scale = 1.0

    def samples(self, outputs: np.ndarray, targets: np.ndarray) -> Samples:
        """Keep each sample's class and prediction.

        Args:
            outputs: Scores [N, C].
            targets: Class indices, int [N].
        """
        smallest = np.uint8 if outputs.shape[1] <= 256 else np.uint16 if outputs.shape[1] <= 65536 else np.int32
        return {"label": targets.astype(smallest), "predicted": predictions(outputs).astype(smallest)}

    def value(self, samples: Samples, weights: np.ndarray | None = None) -> float:
        """Percent."""
        counts = Counts(samples, weights)
        if not counts.seen.any():
            return float("nan")
        return 100.0 * self._share(counts)

    @abstractmethod
    def _share(self, counts: Counts) -> float:
        """In [0, 1]."""


class MicroMetric(ConfusionMetric):
    """All classes' counts together. With one class per sample precision, recall and F1 are then all the accuracy."""

    def _share(self, counts: Counts) -> float:
        return float(counts.right.sum() / counts.actual.sum())


def ratio(over: np.ndarray, under: np.ndarray) -> np.ndarray:
    """Elementwise; 0 where both are 0."""
    found: np.ndarray = np.divide(over, under, out=np.zeros_like(over), where=under > 0)
    return found
