"""What metrics of rankings share: scores of each class, sorted once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import numpy as np

from edgeopt.bundle.outcomes import Samples
from edgeopt.measure.metrics.scores import are_probabilities, probabilities

__all__ = ["RankingMetric", "steps"]


class RankingMetric(ABC):
    """The mean over classes of a figure of "this class before all others"; NaN where a class has no other or no own.

    It keeps N × C ranks, so it is measured where it is asked for.
    """

    name: str
    unit = "%"
    better: Literal["higher", "lower"] = "higher"
    tasks = frozenset({"classification"})
    mean = False
    scale = 1.0

    def samples(self, outputs: np.ndarray, targets: np.ndarray) -> Samples:
        """Keep each sample's place in the order of each class's probabilities, [N, C], and the classes.

        The order is that of all their digits: a sure net's are one within float32's precision.

        Args:
            outputs: Logits or probabilities [N, C].
            targets: Class indices, int [N].
        """
        ready = are_probabilities(outputs)
        score = np.asarray(outputs) if ready else probabilities(outputs, lambda rows, _: rows)
        smallest = np.uint16 if len(score) <= 65536 else np.int32
        places = [np.unique(-column, return_inverse=True)[1] for column in score.T]
        return {"place": np.stack(places, axis=1).astype(smallest), "label": np.asarray(targets, np.int32)}

    def value(self, samples: Samples, weights: np.ndarray | None = None) -> float:
        """Percent, over the classes that the data has."""
        place, label = samples["place"], samples["label"]
        weights = np.ones(len(label)) if weights is None else np.asarray(weights, np.float64)
        present = np.unique(label)
        classes = present if place.shape[1] > 2 else present[present == 1]  # of two, the second is the positive one
        found = [self._of_class(place[:, one], label == one, weights) for one in classes]
        return 100.0 * float(np.mean(found)) if found else float("nan")

    @abstractmethod
    def _of_class(self, place: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> float:
        """In [0, 1]; NaN where it is not defined."""


def steps(place: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the positive and of all other samples at or before each place, the first first.

    Args:
        place: Integers [n], the most probable sample has the least; equal ones are equally probable.
        positive: Bool [n]; ``weights``: float64 [n].
    """
    if len(place) * 8 < int(place.max()):  # a small part of a large split: few of its places are taken
        place = np.unique(place, return_inverse=True)[1]
    right = np.bincount(place, weights * positive)
    return np.cumsum(right), np.cumsum(np.bincount(place, weights * ~positive))
