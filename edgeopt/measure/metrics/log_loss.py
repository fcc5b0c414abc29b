"""Log loss: how much probability the classifier withholds from what is right."""

from __future__ import annotations

from typing import Literal

import numpy as np

from edgeopt.bundle.outcomes import Samples
from edgeopt.measure.metrics.base import MeanMetric
from edgeopt.measure.metrics.scores import probabilities

__all__ = ["LogLoss"]

_TINY = float(np.finfo(np.float64).eps)


class LogLoss(MeanMetric):
    """Mean of -ln(probability of the right class), in nats; probabilities below 2^-52 count as that."""

    name = "log_loss_nats"
    unit = "nats"
    better: Literal["higher", "lower"] = "lower"
    tasks = frozenset({"classification"})

    def samples(self, outputs: np.ndarray, targets: np.ndarray) -> Samples:
        """Keep each sample's loss, float64.

        Args:
            outputs: Logits or probabilities [N, C].
            targets: Class indices, int [N].
        """

        def lost(rows: np.ndarray, start: int) -> np.ndarray:
            own = rows[np.arange(len(rows)), targets[start : start + len(rows)]]
            loss: np.ndarray = -np.log(np.clip(own, _TINY, 1.0))
            return loss

        return {"value": probabilities(outputs, lost)}
