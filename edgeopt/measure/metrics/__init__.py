"""Metrics, one file each: what of each sample is kept, and the figure that any weighting of the samples gives."""

from edgeopt.measure.metrics.base import Metric
from edgeopt.measure.metrics.registry import METRICS

__all__ = ["METRICS", "Metric"]
