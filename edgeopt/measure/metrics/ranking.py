"""What metrics of rankings share: scores of each class, sorted once."""

from __future__ import annotations

from typing import Literal

import numpy as np

from edgeopt.bundle.outcomes import Samples
from edgeopt.measure.metrics.scores import probabilities

__all__ = ["RankingMetric", "steps"]


class RankingMetric:
    """The mean over classes of a figure of "this class before all others"; NaN where a class has no other or no own.

    It keeps N × C probabilities, so it is measured where it is asked for.
    """

    name = ""
    unit = "%"
    better: Literal["higher", "lower"] = "higher"
    tasks = frozenset({"classification"})
    mean = False
    scale = 1.0

    def samples(self, outputs: np.ndarray, targets: np.ndarray) -> Samples:
        """Keep the probabilities, float32 [N, C], and the classes.

        Args:
            outputs: Logits or probabilities [N, C].
            targets: Class indices, int [N].
        """
        return {
            "score": probabilities(outputs, lambda rows, _: rows.astype(np.float32)),
            "label": np.asarray(targets, np.int32),
        }

    def value(self, samples: Samples, weights: np.ndarray | None = None) -> float:
        """Percent, over the classes that the data has."""
        score, label = samples["score"], samples["label"]
        weights = np.ones(len(label)) if weights is None else np.asarray(weights, np.float64)
        present = np.unique(label)
        classes = present if score.shape[1] > 2 else present[present == 1]  # of two, the second is the positive one
        found = [self._of_class(score[:, one], label == one, weights) for one in classes]
        return 100.0 * float(np.mean(found)) if found else float("nan")

    def _of_class(self, score: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> float:
        raise NotImplementedError


def steps(score: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the positive and of all other samples at or above each distinct score, the highest first."""
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    weight, own = weights[order], positive[order]
    return np.cumsum(weight * own)[last], np.cumsum(weight * ~own)[last]
