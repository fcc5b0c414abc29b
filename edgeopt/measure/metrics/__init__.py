"""Metrics, one file each: what of each sample is kept, and the figure that any weighting of the samples gives."""

from edgeopt.measure.metrics.base import Metric, drop_of, weighted
from edgeopt.measure.metrics.registry import METRICS, find_metrics, metrics_for

__all__ = ["METRICS", "Metric", "drop_of", "find_metrics", "metrics_for", "weighted"]
