"""A metric of the user's own, named ``package.module:callable``: a cost matrix of the business, say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from edgeopt.bundle.outcomes import Samples
from edgeopt.core.errors import DataError
from edgeopt.core.named import imported
from edgeopt.measure.metrics.base import MeanMetric, Metric

__all__ = ["PerSample", "custom_metric"]

_WHAT = "The metric"


def custom_metric(place: str) -> Metric:
    """The metric that ``place`` names.

    Either a class, or anything else that is called without arguments, that makes an object with all of ``Metric``; or
    a function ``(outputs, targets) -> values [N]`` whose mean is the figure. A function may say more in attributes of
    its own: ``better`` (``lower``, a cost, unless it says ``higher``), ``unit`` and ``name``.

    Raises:
        DataError: It cannot be imported or made.
    """
    found = imported(place, what=_WHAT, error=DataError)
    if not isinstance(found, type):
        return PerSample(found, place)
    try:
        made: Any = found()
    except Exception as error:  # the user's code may raise anything
        raise DataError(f"{_WHAT} cannot be made.", got=f"{place} ({type(error).__name__}: {error})") from error
    missing = [name for name in ("name", "unit", "better", "samples", "value") if not hasattr(made, name)]
    if missing:
        raise DataError(
            f"{_WHAT} lacks what a metric needs.",
            got=f"{place} without {', '.join(missing)}",
            fix="Look at edgeopt.measure.metrics.base.Metric, or name a function (outputs, targets) -> values [N].",
        )
    for name, value in (("tasks", frozenset()), ("mean", False), ("scale", 1.0)):
        if not hasattr(made, name):
            setattr(made, name, value)
    metric: Metric = made
    return metric


class PerSample(MeanMetric):
    """The mean of a function of each sample.

    Args:
        function: Called with outputs [N, …] and targets [N, …]; gives numbers [N].
        place: How errors name it.
    """

    def __init__(self, function: Callable[[np.ndarray, np.ndarray], np.ndarray], place: str) -> None:
        self._function, self._place = function, place
        self.name = str(getattr(function, "name", place.rpartition(":")[2].rpartition(".")[2]))
        self.unit = str(getattr(function, "unit", "1"))
        self.better: Literal["higher", "lower"] = getattr(function, "better", "lower")
        if self.better not in ("higher", "lower"):
            raise DataError(f"{_WHAT} does not say which direction is good.", got=f"{place}.better = {self.better!r}")

    def samples(self, outputs: np.ndarray, targets: np.ndarray) -> Samples:
        """Keep what the function gives, float64 [N].

        Raises:
            DataError: It raised, or gave something else than one finite number per sample.
        """
        try:
            values = np.asarray(self._function(outputs, targets))
        except Exception as error:  # the user's code may raise anything
            raise DataError(f"{_WHAT} raised.", got=f"{self._place}: {type(error).__name__}: {error}") from error
        if values.shape != (len(outputs),) or values.dtype.kind not in "buif":
            raise DataError(
                f"{_WHAT} gives no number for each sample.",
                got=f"{values.dtype}{list(values.shape)} from {self._place} for {len(outputs)} samples",
                fix="Return an array [N] of numbers.",
            )
        if not np.isfinite(values).all():
            raise DataError(f"{_WHAT} gives values that are not finite.", got=self._place)
        return {"value": values.astype(np.float64)}
