"""Top-k accuracy of a classifier."""

from __future__ import annotations

from typing import Literal

import numpy as np

from edgeopt.bundle.outcomes import Samples

__all__ = ["TopOne"]

_ROWS = 1024  # outputs may be mapped from a file larger than memory


class TopOne:
    """Share of the samples whose highest score is that of their class; among equal scores the lowest class counts."""

    name = "accuracy_top1_pct"
    unit = "%"
    better: Literal["higher", "lower"] = "higher"
    tasks = frozenset({"classification"})
    mean = True
    scale = 100.0

    def samples(self, outputs: np.ndarray, targets: np.ndarray) -> Samples:
        """Keep whether each sample is right.

        Args:
            outputs: Scores [N, C].
            targets: Class indices, int [N].
        """
        starts = range(0, len(outputs), _ROWS)
        predicted = np.concatenate([np.argmax(outputs[start : start + _ROWS], axis=1) for start in starts])
        return {"value": predicted == targets}

    def value(self, samples: Samples, weights: np.ndarray | None = None) -> float:
        """Percent of the samples."""
        return self.scale * float(np.average(samples["value"], weights=weights))
