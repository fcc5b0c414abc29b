"""Recall: of what is of a class, the share that is predicted so."""

from __future__ import annotations

from edgeopt.measure.metrics.confusion import ConfusionMetric, Counts, ratio

__all__ = ["RecallMacro", "RecallMicro"]


class RecallMacro(ConfusionMetric):
    """Right predictions of a class over its samples; the mean over the classes that occur as label or prediction."""

    name = "recall_macro_pct"

    def _share(self, counts: Counts) -> float:
        return float(ratio(counts.right, counts.actual)[counts.seen].mean())


class RecallMicro(ConfusionMetric):
    """Right predictions of a class over its samples; all classes' counts together. With one class per sample that is the accuracy."""

    name = "recall_micro_pct"

    def _share(self, counts: Counts) -> float:
        return float(counts.right.sum() / counts.actual.sum())
