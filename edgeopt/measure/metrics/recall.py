"""Recall: of what is of a class, the share that is predicted so."""

from __future__ import annotations

from edgeopt.measure.metrics.confusion import ConfusionMetric, Counts, MicroMetric, ratio

__all__ = ["RecallMacro", "RecallMicro"]


class RecallMacro(ConfusionMetric):
    """Right predictions of a class over its samples; the mean over the classes that occur as label or prediction."""

    name = "recall_macro_pct"

    def _share(self, counts: Counts) -> float:
        return float(ratio(counts.right, counts.actual)[counts.seen].mean())


class RecallMicro(MicroMetric):
    """The same over all classes' counts together."""

    name = "recall_micro_pct"
