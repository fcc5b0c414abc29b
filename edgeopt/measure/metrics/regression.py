"""What metrics of regressors share: errors per sample."""

from __future__ import annotations

from typing import Literal

import numpy as np

from edgeopt.core.errors import DataError
from edgeopt.measure.metrics.scores import by_rows

__all__ = ["RegressionMetric", "per_sample"]


class RegressionMetric:
    """A figure of outputs [N, …] against targets of the same shape; all values of a sample count alike."""

    name: str
    unit = "1"
    better: Literal["higher", "lower"] = "lower"
    tasks = frozenset({"regression"})
    mean = False
    scale = 1.0


def per_sample(outputs: np.ndarray, targets: np.ndarray, figure: str = "the metric") -> tuple[np.ndarray, np.ndarray]:
    """Outputs and targets as float64 [N, D].

    Raises:
        DataError: They have different sizes.
    """
    rows = by_rows(outputs, lambda part, _: part.reshape(len(part), -1).astype(np.float64))
    wanted = np.asarray(targets, np.float64).reshape(len(targets), -1)
    if rows.shape != wanted.shape:
        raise DataError(
            f"Outputs and targets have different sizes, and {figure} compares them value by value.",
            got=f"outputs {list(outputs.shape)}, targets {list(targets.shape)}",
            fix="Save targets of the shape that the model's first output has.",
        )
    return rows, wanted
