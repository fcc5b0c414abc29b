"""Mean intersection over union of a segmentation."""

from __future__ import annotations

from typing import Literal

import numpy as np

from edgeopt.bundle.outcomes import Samples
from edgeopt.core.errors import DataError

__all__ = ["MeanIoU"]


class MeanIoU:
    """Intersection over union of each class over all pixels of all samples; its mean over the classes.

    A class that neither the masks nor the answers have is left out, as in ``sklearn.metrics.jaccard_score`` with
    ``average="macro"``. Pixels with target -1 are not counted. Among equal scores the lowest class counts.
    """

    name = "miou_pct"
    unit = "%"
    better: Literal["higher", "lower"] = "higher"
    tasks = frozenset({"segmentation"})
    mean = False
    scale = 1.0

    def samples(self, outputs: np.ndarray, targets: np.ndarray) -> Samples:
        """Keep of each sample, per class, the pixels in both and the pixels in either.

        Args:
            outputs: Scores [N, C, H, W].
            targets: Class per pixel, int [N, H, W]; -1 is not counted.

        Returns:
            ``intersection`` and ``union``, int32 [N, C].
        """
        if outputs.ndim != 4 or outputs.shape[1] < 2:
            raise DataError(
                "Segmentation is judged on scores [N, classes, H, W].",
                got=f"outputs of shape {list(outputs.shape)}",
                fix="Give the model one map of scores per class, two at least.",
            )
        count, classes = outputs.shape[:2]
        if targets.shape != (count, *outputs.shape[2:]):
            raise DataError(
                "The masks have another size than the model's output.",
                got=f"masks {list(targets.shape)}, outputs {list(outputs.shape)}",
                fix="Resize the masks to the output (nearest neighbour), or have the model resize its scores.",
            )
        intersection = np.zeros((count, classes), np.int32)
        union = np.zeros((count, classes), np.int32)
        for index in range(count):  # a sample at a time: outputs may be mapped from a file larger than memory
            counted = targets[index] != -1
            wanted = targets[index][counted]
            answered = np.argmax(outputs[index], axis=0)[counted]
            if wanted.size and (wanted.min() < 0 or wanted.max() >= classes):
                raise DataError(
                    f"A mask does not fit the model's {classes} classes.",
                    got=f"classes from {wanted.min()} to {wanted.max()} in sample {index}",
                    fix="Class indices start at 0; -1 is not counted.",
                )
            intersection[index] = np.bincount(wanted[wanted == answered], minlength=classes)
            either = np.bincount(wanted, minlength=classes) + np.bincount(answered, minlength=classes)
            union[index] = either - intersection[index]
        return {"intersection": intersection, "union": union}

    def value(self, samples: Samples, weights: np.ndarray | None = None) -> float:
        """Percent; NaN where no pixel counts."""
        both, either = samples["intersection"], samples["union"]
        w = np.ones(len(both)) if weights is None else np.asarray(weights, np.float64)
        inside, total = w @ both, w @ either
        seen = total > 0
        return 100.0 * float(np.mean(inside[seen] / total[seen])) if seen.any() else float("nan")
