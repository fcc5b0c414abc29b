"""Times that were taken in blocks: quantiles, ratios and rates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import stats

from edgeopt.core.measurement import Interval

__all__ = ["block_quantiles", "median_of_few", "quantile", "rate"]

_LEVEL = 0.95
_RESAMPLES = 2000
_FEWEST_BLOCKS = 10  # below, the resampled blocks repeat too often for a percentile bootstrap


def quantile(samples: np.ndarray, q: float, level: float = _LEVEL) -> Interval | None:
    """Order statistics around the quantile ``q`` of independent samples; None where there are too few.

    No assumption on the distribution (Conover, Practical Nonparametric Statistics, section 3.2).
    """
    found = stats.quantile_test(samples, q=float(np.quantile(samples, q)), p=q).confidence_interval(level)
    if not (math.isfinite(found.low) and math.isfinite(found.high)):
        return None
    return Interval(low=float(found.low), high=float(found.high), level=level, method="order statistics")


def block_quantiles(
    blocks: np.ndarray, qs: Sequence[float], *, seed: int, level: float = _LEVEL
) -> list[Interval | None]:
    """An interval for each quantile of samples that were taken in blocks.

    Neighbours in time are alike (clock, cache, other processes), so whole blocks are resampled: the percentile block
    bootstrap. Fewer than 10 blocks fall back on order statistics, which take the samples as independent.

    Args:
        blocks: float64 [blocks, samples per block].
        qs: In (0, 1).
    """
    if len(blocks) < _FEWEST_BLOCKS:
        return [quantile(blocks.ravel(), q, level) for q in qs]
    drawn = blocks[_resampled(len(blocks), seed)].reshape(_RESAMPLES, -1)
    return [
        Interval(low=float(low), high=float(high), level=level, method=f"bootstrap over {len(blocks)} blocks")
        for low, high in np.quantile(np.quantile(drawn, qs, axis=1), _tails(level), axis=1).T
    ]


def rate(blocks_s: np.ndarray, batch: int, level: float = _LEVEL) -> Interval:
    """Student's t over the block means of a time, turned into samples per second.

    Args:
        blocks_s: Seconds, float64 [blocks (at least 2), inferences per block].
    """
    means = blocks_s.mean(axis=1)
    half = float(stats.t.ppf(0.5 + level / 2, len(means) - 1) * stats.sem(means))
    centre = float(means.mean())
    # The interval of the time may reach zero where few blocks differ widely; no time is below the fastest inference.
    fastest = float(blocks_s.min())
    return Interval(
        low=batch / (centre + half),
        high=batch / max(centre - half, fastest),
        level=level,
        method=f"Student's t over {len(means)} blocks",
    )


def median_of_few(samples: Sequence[float]) -> Interval:
    """The range of n samples: it covers the median with probability 1 − 2^(1−n), at whatever distribution."""
    n = len(samples)
    if n < 2:
        raise ValueError("one sample has no range")
    return Interval(low=min(samples), high=max(samples), level=1 - 2.0 ** (1 - n), method=f"range of {n} starts")


def _resampled(blocks: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, blocks, (_RESAMPLES, blocks))


def _tails(level: float) -> list[float]:
    return [0.5 - level / 2, 0.5 + level / 2]
