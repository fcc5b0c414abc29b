"""What metrics of rankings share: scores of each class, sorted once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgeopt.bundle.outcomes import Samples
from edgeopt.measure.metrics.scores import are_probabilities, probabilities

__all__ = ["RankingMetric", "Steps"]


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
        return self.weighted(samples)(np.ones(len(samples["label"])) if weights is None else weights)

    def weighted(self, samples: Samples) -> Callable[[np.ndarray], float]:
        """``value`` of these samples as a function of their weights; they are sorted once."""
        place, label = samples["place"], samples["label"]
        present = np.unique(label)
        classes = present if place.shape[1] > 2 else present[present == 1]  # of two, the second is the positive one
        rankings = [_Ranking.of(place[:, one], label == one) for one in classes]

        def value(weights: np.ndarray) -> float:
            if not rankings:
                return float("nan")
            weights = np.asarray(weights, np.float64)
            return 100.0 * float(np.mean([self._of_class(ranking.steps(weights)) for ranking in rankings]))

        return value

    @abstractmethod
    def _of_class(self, steps: Steps) -> float:
        """In [0, 1]; NaN where it is not defined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Weights along the order of one class, at the places where any of its own samples stands, the first first.

    Attributes:
        own: Of the class's samples at each place, float64 [G].
        others: Of all other samples at the same place: they are as probable.
        through: Of all samples at or before it.
        total: Of all samples.
    """

    own: np.ndarray
    others: np.ndarray
    through: np.ndarray
    total: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ranking:
    """Samples in the order of one class: what ``steps`` needs of it, indices int64.

    Attributes:
        order: All samples up to the last of the class's own, the most probable first.
        begins: Where in ``order`` the stretch begins that ends with each of the class's places.
        own, own_begins: The class's own samples in order, and where each place begins in them.
        at, at_begins: Likewise all samples that stand where one of the class's own does.
    """

    order: np.ndarray
    begins: np.ndarray
    own: np.ndarray
    own_begins: np.ndarray
    at: np.ndarray
    at_begins: np.ndarray

    @classmethod
    def of(cls, place: np.ndarray, positive: np.ndarray) -> _Ranking:
        """Sort; ``positive`` bool [n] has at least one."""
        order = np.argsort(place, kind="stable")
        _, group = np.unique(place[order], return_inverse=True)
        mine = positive[order]
        held = np.isin(group, group[mine])
        ends = np.flatnonzero(held & np.append(np.diff(group) > 0, True)) + 1
        return cls(
            order=order[: ends[-1]],
            begins=np.append(0, ends[:-1]),
            own=order[mine],
            own_begins=np.flatnonzero(np.diff(group[mine], prepend=-1)),
            at=order[held],
            at_begins=np.flatnonzero(np.diff(group[held], prepend=-1)),
        )

    def steps(self, weights: np.ndarray) -> Steps:
        """The steps under these weights, float64 [n]."""
        own = np.add.reduceat(weights[self.own], self.own_begins)
        return Steps(
            own=own,
            others=np.add.reduceat(weights[self.at], self.at_begins) - own,
            through=np.cumsum(np.add.reduceat(weights[self.order], self.begins)),
            total=float(weights.sum()),
        )
