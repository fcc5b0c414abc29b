"""COCO's mean average precision of detections, under any weighting of the images.

The definition is that of ``pycocotools.cocoeval`` (bounding boxes, all areas, 100 detections per image and class):
images are matched once, and only the matches are kept; precision is accumulated from them for the weights asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from edgeopt.bundle.outcomes import Samples
from edgeopt.core.errors import BackendError, DataError

__all__ = ["Map50", "Map5095"]

_MOST = 100  # detections per image and class
_RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True, slots=True, kw_only=True)
class _ClassRecord:
    """All detections of one class, by falling score: whose image, and whether they match at each threshold.

    ``images``: int [D]; ``matched``: bool [T, D]; ``targets``: int [N], how many boxes each image has.
    """

    images: np.ndarray
    matched: np.ndarray
    targets: np.ndarray


class Map5095:
    """Mean over classes and over the IoU thresholds 0.5, 0.55, …, 0.95 of the average precision at 101 recalls."""

    name = "map_50_95"
    unit = "1"
    better: Literal["higher", "lower"] = "higher"
    tasks = frozenset({"detection"})
    mean = False
    scale = 1.0
    thresholds = np.linspace(0.5, 0.95, 10)

    def __init__(self) -> None:
        # A bootstrap asks thousands of times for the same samples; sorting them takes longer than one answer.
        self._sorted: tuple[Samples, list[_ClassRecord]] | None = None

    def samples(self, outputs: np.ndarray, targets: np.ndarray) -> Samples:
        """Match each image's detections with its boxes, the highest score first.

        Args:
            outputs: Detections [N, K, 6], rows (x1, y1, x2, y2, score, class); a score of 0 or less is padding. Classes
                are rounded to whole numbers.
            targets: Boxes [N, M, 5], rows (class, x1, y1, x2, y2); class -1 is padding.

        Returns:
            ``score`` float [N, D] and ``class`` int32 [N, D] (-1: padding), by falling score in each image;
            ``matched`` uint16 [N, D], bit t set where the detection matches at threshold t; ``targets`` int32 [N, C],
            how many boxes of each class an image has.

        Raises:
            DataError: Outputs or targets have another form.
            BackendError: pycocotools is not installed.
        """
        _check(outputs, targets)
        classes = int(targets[..., 0].max(initial=-1)) + 1
        found = [self._match(np.asarray(out), box) for out, box in zip(outputs, targets, strict=True)]
        width = max((len(scores) for scores, _, _ in found), default=0)
        kept = {
            "score": np.zeros((len(found), width), outputs.dtype),
            "class": np.full((len(found), width), -1, np.int32),
            "matched": np.zeros((len(found), width), np.uint16),
            "targets": np.zeros((len(found), classes), np.int32),
        }
        for index, (row, box) in enumerate(zip(found, targets, strict=True)):
            for name, values in zip(("score", "class", "matched"), row, strict=True):
                kept[name][index, : len(values)] = values
            kept["targets"][index] = np.bincount(box[box[:, 0] >= 0, 0].astype(np.int64), minlength=classes)
        return kept

    def value(self, samples: Samples, weights: np.ndarray | None = None) -> float:
        """In [0, 1]; NaN where the weighted images have no box. Among equal scores the order of the images counts."""
        if self._sorted is None or self._sorted[0] is not samples:
            self._sorted = samples, _by_class(samples, len(self.thresholds))
        w = np.ones(len(samples["score"])) if weights is None else np.asarray(weights, np.float64)
        found = [_average_precision(record, w) for record in self._sorted[1]]
        known = [value for value in found if value is not None]
        return float(np.mean(known)) if known else float("nan")

    def _match(self, detections: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Scores, classes and matches of one image's detections, by falling score."""
        detections = detections[detections[:, 4] > 0]
        detections = detections[np.argsort(-detections[:, 4], kind="stable")]
        kinds = np.rint(detections[:, 5]).astype(np.int32)
        matched, counts = np.zeros(len(kinds), np.uint16), np.zeros(len(kinds), bool)
        for kind in np.unique(kinds):
            mine = np.flatnonzero(kinds == kind)[:_MOST]
            corners = detections[mine, :4].astype(np.float64)
            wanted = boxes[boxes[:, 0] == kind, 1:].astype(np.float64)
            matched[mine] = self._greedy(_iou(corners, wanted))
            counts[mine] = _area(corners) >= 0  # COCO counts no box of negative area, though it takes up a place
        return detections[counts, 4], kinds[counts], matched[counts]

    def _greedy(self, iou: np.ndarray) -> np.ndarray:
        """Bit t of each detection [D]: it takes a free box with IoU ≥ threshold t, the best one; of equals the last."""
        detections, boxes = iou.shape
        bits = np.zeros(detections, np.uint16)
        if not boxes:
            return bits
        limits = np.minimum(self.thresholds, 1 - 1e-10)
        rows = np.arange(len(limits))
        taken = np.zeros((len(limits), boxes), bool)
        for index in range(detections):
            free = np.where(taken, -1.0, iou[index])
            best = boxes - 1 - np.argmax(free[:, ::-1], axis=1)
            hit = free[rows, best] >= limits
            taken[rows[hit], best[hit]] = True
            bits[index] = np.sum(1 << rows[hit])
        return bits


class Map50(Map5095):
    """Mean over classes of the average precision at IoU 0.5."""

    name = "map_50"
    thresholds = np.array([0.5])


def _check(outputs: np.ndarray, targets: np.ndarray) -> None:
    if outputs.ndim != 3 or outputs.shape[2] != 6:
        raise DataError(
            "Detections are judged as rows (x1, y1, x2, y2, score, class), [N, K, 6].",
            got=f"outputs of shape {list(outputs.shape)}",
            fix="Name in the manifest what makes such rows of the model's outputs: decoder: package.module:callable.",
        )
    if targets.ndim != 3 or targets.shape[2] != 5 or len(targets) != len(outputs):
        raise DataError(
            "The boxes do not fit the detections.",
            got=f"boxes {list(targets.shape)} for detections {list(outputs.shape)}",
            fix="Give boxes [N, M, 5]: rows (class, x1, y1, x2, y2), padded with class -1.",
        )


def _iou(detections: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Intersection over union [D, M] of corners [D, 4] and [M, 4]."""
    if not len(detections) or not len(boxes):
        return np.zeros((len(detections), len(boxes)))
    iou: np.ndarray = _pycocotools_mask().iou(_sides(detections), _sides(boxes), [0] * len(boxes))
    return iou


def _pycocotools_mask() -> Any:
    try:
        from pycocotools import mask  # noqa: PLC0415  an extra, for those who judge detections
    except ImportError as error:
        raise BackendError(
            "Detections are matched by pycocotools, which is not installed.",
            got=str(error),
            fix="Install it with: pip install 'edgeopt[detection]'.",
        ) from error
    return mask


def _sides(corners: np.ndarray) -> np.ndarray:
    """Corners (x1, y1, x2, y2) as (x, y, width, height)."""
    return np.ascontiguousarray(np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1))


def _area(corners: np.ndarray) -> np.ndarray:
    return np.asarray((corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1]))


def _by_class(samples: Samples, thresholds: int) -> list[_ClassRecord]:
    """One record per class that some image has a box of."""
    records = []
    bits = np.arange(thresholds)[:, None]
    for kind in np.flatnonzero(samples["targets"].sum(axis=0)):
        images, places = np.nonzero(samples["class"] == kind)
        order = np.argsort(-samples["score"][images, places], kind="stable")
        images, places = images[order], places[order]
        matched = (samples["matched"][images, places] >> bits) & 1
        records.append(_ClassRecord(images=images, matched=matched.astype(bool), targets=samples["targets"][:, kind]))
    return records


def _average_precision(record: _ClassRecord, weights: np.ndarray) -> float | None:
    """Mean over thresholds and recalls of the interpolated precision; None where no weighted image has a box."""
    boxes = float(record.targets @ weights)
    if not boxes > 0:
        return None
    each = weights[record.images]
    right = np.cumsum(record.matched * each, axis=1)
    wrong = np.cumsum(~record.matched * each, axis=1)
    precision = right / (right + wrong + np.spacing(1))
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    total = 0.0
    for recall, values in zip(right / boxes, precision, strict=True):
        places = np.searchsorted(recall, _RECALLS, side="left")
        total += float(values[places[places < len(values)]].sum())
    return total / (len(right) * len(_RECALLS))
