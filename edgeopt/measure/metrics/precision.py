"""Precision: of what is predicted as a class, the share that is of it."""

from __future__ import annotations

from edgeopt.measure.metrics.confusion import ConfusionMetric, Counts, MicroMetric, ratio

__all__ = ["PrecisionMacro", "PrecisionMicro"]


class PrecisionMacro(ConfusionMetric):
    """Right predictions of a class over its predictions; the mean over the classes that occur as label or prediction."""

    name = "precision_macro_pct"

    def _share(self, counts: Counts) -> float:
        return float(ratio(counts.right, counts.predicted)[counts.seen].mean())


class PrecisionMicro(MicroMetric):
    """The same over all classes' counts together."""

    name = "precision_micro_pct"
