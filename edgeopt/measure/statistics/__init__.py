"""Intervals: how far a figure could be from the truth, given how few samples it rests on."""

from edgeopt.measure.statistics.bootstrap import FEWEST_SAMPLES, bootstrap, bootstrap_mean
from edgeopt.measure.statistics.multiple import holm
from edgeopt.measure.statistics.power import detectable_drop, fail_power, holdable_limit, pass_power, samples_needed
from edgeopt.measure.statistics.ratios import (
    FEWEST_FOR_P99,
    FEWEST_ROUNDS,
    half_width,
    ratio_of_medians,
    ratio_of_quantiles,
    ratio_of_windows,
)
from edgeopt.measure.statistics.shares import exceeds_p, mcnemar_p, paired_difference, proportion
from edgeopt.measure.statistics.timing import block_quantiles, median_of_few, quantile, rate

__all__ = [
    "FEWEST_FOR_P99",
    "FEWEST_ROUNDS",
    "FEWEST_SAMPLES",
    "block_quantiles",
    "bootstrap",
    "bootstrap_mean",
    "detectable_drop",
    "exceeds_p",
    "fail_power",
    "half_width",
    "holdable_limit",
    "holm",
    "mcnemar_p",
    "median_of_few",
    "paired_difference",
    "pass_power",
    "proportion",
    "quantile",
    "rate",
    "ratio_of_medians",
    "ratio_of_quantiles",
    "ratio_of_windows",
    "samples_needed",
]
