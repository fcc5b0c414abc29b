"""Expected calibration error: how far confidence is from accuracy."""

from __future__ import annotations

from typing import Literal

import numpy as np

from edgeopt.bundle.outcomes import Samples
from edgeopt.measure.metrics.scores import predictions, probabilities

__all__ = ["BINS", "CalibrationError", "reliability"]

BINS = 15


class CalibrationError:
    """Mean over samples of |accuracy - confidence| of their bin, 15 bins of equal width (Guo et al. 2017, equation 3)."""

    name = "calibration_error_pct"
    unit = "%"
    better: Literal["higher", "lower"] = "lower"
    tasks = frozenset({"classification"})
    mean = False
    scale = 1.0

    def samples(self, outputs: np.ndarray, targets: np.ndarray) -> Samples:
        """Keep the highest probability, float32, and whether it is the right class's.

        Args:
            outputs: Logits or probabilities [N, C].
            targets: Class indices, int [N].
        """
        confidence = probabilities(outputs, lambda rows, _: rows.max(axis=1).astype(np.float32))
        return {"confidence": confidence, "right": predictions(outputs) == targets}

    def value(self, samples: Samples, weights: np.ndarray | None = None) -> float:
        """Percent."""
        count, confidence, accuracy = reliability(samples, weights)
        if count.sum() == 0:
            return float("nan")
        return 100.0 * float(np.sum(count * np.abs(accuracy - confidence)) / count.sum())


def reliability(samples: Samples, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a reliability diagram shows, per bin: weight of its samples, mean confidence, accuracy; float64 [15] each.

    Bin i holds confidences in (i/15, (i+1)/15]; empty bins are 0 in all three.
    """
    confidence = samples["confidence"].astype(np.float64)
    place = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
    weights = np.ones(len(place)) if weights is None else weights
    count = np.bincount(place, weights, BINS)
    filled = np.maximum(count, 1e-300)
    return (
        count,
        np.bincount(place, weights * confidence, BINS) / filled,
        np.bincount(place, weights * samples["right"], BINS) / filled,
    )
