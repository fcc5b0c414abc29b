"""Metrics by their names."""

from __future__ import annotations

from collections.abc import Callable

from edgeopt.core.registry import Registry
from edgeopt.measure.metrics.base import Metric

__all__ = ["METRICS"]

METRICS: Registry[Callable[[], Metric]] = Registry(
    "metric",
    {
        "accuracy_top1_pct": "edgeopt.measure.metrics.accuracy:TopOne",
        "map_50": "edgeopt.measure.metrics.detection:Map50",
        "map_50_95": "edgeopt.measure.metrics.detection:Map5095",
        "miou_pct": "edgeopt.measure.metrics.segmentation:MeanIoU",
    },
    "edgeopt.metrics",
)
"""Metric name → what makes it, imported on use."""
