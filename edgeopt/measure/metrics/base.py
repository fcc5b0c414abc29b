"""What every metric promises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Literal, Protocol

import numpy as np

from edgeopt.bundle.outcomes import Samples

__all__ = ["MeanMetric", "Metric", "drop_of", "weighted"]


class Metric(Protocol):
    """A figure of merit over a test split, in two halves.

    ``samples`` looks at outputs and targets once and keeps little per sample; ``value`` computes the figure from that
    for any weighting. So the figure of a slice, of a bootstrap's resample and of a bundle whose data is elsewhere come
    from one definition.

    Attributes:
        name: With its unit as suffix: ``accuracy_top1_pct``, ``f1_macro_pct``, ``log_loss_nats``.
        unit: ``%``, ``nats``, ``1``, …
        better: Which direction is good. A drop is always positive where the candidate is worse.
        tasks: The tasks whose data it can judge.
        mean: Whether the figure is the weighted mean of the one array that ``samples`` returns, ``value``, times
            ``scale``: then intervals have closed forms or cost little.
        scale: What the mean is multiplied by (100 for percent); 1 where ``mean`` is false.
    """

    name: str
    unit: str
    better: Literal["higher", "lower"]
    tasks: frozenset[str]
    mean: bool
    scale: float

    def samples(self, outputs: np.ndarray, targets: np.ndarray) -> Samples:
        """What is kept of each sample.

        Args:
            outputs: The model's first output, [N, …].
            targets: As the data has them, [N, …].

        Raises:
            DataError: Outputs or targets do not fit the metric.
        """
        ...

    def value(self, samples: Samples, weights: np.ndarray | None = None) -> float:
        """The figure.

        Args:
            samples: From ``samples``.
            weights: float64 or int64 [N], ≥ 0; how often each sample counts; None: once.

        Returns:
            NaN where the weighted samples do not define it (one class alone has no ROC-AUC).
        """
        ...


class MeanMetric(ABC):
    """A metric that is the mean of one number per sample, kept as ``value``."""

    name: str
    unit: str = "1"
    better: Literal["higher", "lower"] = "lower"
    tasks: frozenset[str] = frozenset()
    mean = True
    scale: float = 1.0

    @abstractmethod
    def samples(self, outputs: np.ndarray, targets: np.ndarray) -> Samples:
        """Keep ``value``, numbers or bools [N]."""

    def value(self, samples: Samples, weights: np.ndarray | None = None) -> float:
        """Their weighted mean, times ``scale``."""
        return self.scale * float(np.average(samples["value"], weights=weights))


def weighted(metric: Metric, samples: Samples) -> Callable[[np.ndarray], float]:
    """``metric.value`` of these samples as a function of their weights.

    A metric may have a method of that name, which does what does not depend on the weights once for all resamples.
    """
    own: Callable[[Samples], Callable[[np.ndarray], float]] | None = getattr(metric, "weighted", None)
    return partial(metric.value, samples) if own is None else own(samples)


def drop_of(metric: Metric, reference: float, candidate: float) -> float:
    """How much worse the candidate is, in the metric's unit (percentage points for percent): positive is worse."""
    return reference - candidate if metric.better == "higher" else candidate - reference
