"""F1: the harmonic mean of precision and recall."""

from __future__ import annotations

from edgeopt.measure.metrics.confusion import ConfusionMetric, Counts, MicroMetric, ratio

__all__ = ["F1Macro", "F1Micro"]


class F1Macro(ConfusionMetric):
    """Twice the right predictions of a class over its samples plus its predictions; the mean over the classes that occur as label or prediction."""

    name = "f1_macro_pct"

    def _share(self, counts: Counts) -> float:
        return float(ratio(2 * counts.right, counts.actual + counts.predicted)[counts.seen].mean())


class F1Micro(MicroMetric):
    """The same over all classes' counts together."""

    name = "f1_micro_pct"
