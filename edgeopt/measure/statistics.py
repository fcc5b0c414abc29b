"""Intervals: how far a figure could be from the truth, given how few samples it rests on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy import optimize, stats

from edgeopt.core.measurement import Interval

__all__ = [
    "block_quantiles",
    "mcnemar_p",
    "median_of_few",
    "paired_difference",
    "proportion",
    "quantile",
    "rate",
    "ratio_of_medians",
]

_LEVEL = 0.95
_RESAMPLES = 2000
_FEWEST_BLOCKS = 10  # below, the resampled blocks repeat too often for a percentile bootstrap


def proportion(successes: int, n: int, level: float = _LEVEL) -> Interval:
    """Wilson's score interval for a share (Wilson 1927, equation 5).

    >>> interval = proportion(90, 100)
    >>> round(interval.low, 4), round(interval.high, 4)
    (0.8256, 0.9448)
    """
    found = stats.binomtest(successes, n).proportion_ci(confidence_level=level, method="wilson")
    return Interval(low=float(found.low), high=float(found.high), level=level, method="Wilson score")


def paired_difference(only_first: int, only_second: int, n: int, level: float = _LEVEL) -> Interval:
    """Tango's score interval for the difference of two shares of the same ``n`` samples, first minus second.

    Tango, Statistics in Medicine 17 (1998) 891–908: the limits are the two differences at which the score statistic
    of section 3 equals ± the normal quantile, the nuisance parameter at its restricted maximum-likelihood estimate.
    Unlike Wald's interval it has a width where the two never differ.

    Args:
        only_first: Samples on which only the first was successful (b); ``only_second``: only the second (c).
        n: All samples.
    """
    b, c = only_first, only_second
    if n < 1 or b < 0 or c < 0 or b + c > n:
        raise ValueError(f"{b} + {c} discordant pairs do not fit into {n} samples")
    z = float(stats.norm.ppf(0.5 + level / 2))
    estimate = (b - c) / n
    low = -1.0 if c == n else _score_root(b, c, n, z=z, low=-1.0, high=estimate)
    high = 1.0 if b == n else _score_root(b, c, n, z=-z, low=estimate, high=1.0)
    return Interval(low=low, high=high, level=level, method="Tango score, paired")


def mcnemar_p(only_first: int, only_second: int) -> float:
    """The exact two-sided p-value of "both err equally often" (McNemar): a sign test on the discordant pairs."""
    discordant = only_first + only_second
    return float(stats.binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0


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


def ratio_of_medians(
    candidate: np.ndarray, reference: np.ndarray, *, seed: int, level: float = _LEVEL
) -> tuple[float, Interval]:
    """The ratio of two medians whose blocks were taken in turns: block i of both belong to one round.

    Rounds are resampled, and both medians taken over the same rounds, so what slowed a whole round cancels. Below 10
    rounds: Student's t on the logarithms of each round's ratio of medians.

    Args:
        candidate: float64 [rounds, samples per block], > 0; ``reference`` likewise, with as many rounds (at least 2).
    """
    if len(candidate) != len(reference) or len(candidate) < 2:
        raise ValueError(f"{len(candidate)} and {len(reference)} rounds cannot be paired")
    value = float(np.median(candidate) / np.median(reference))
    if len(candidate) < _FEWEST_BLOCKS:
        logs = np.log(np.median(candidate, axis=1) / np.median(reference, axis=1))
        half = float(stats.t.ppf(0.5 + level / 2, len(logs) - 1) * stats.sem(logs))
        centre = float(logs.mean())
        method = f"Student's t over {len(logs)} paired rounds"
        low, high = math.exp(centre - half), math.exp(centre + half)
    else:
        rounds = _resampled(len(candidate), seed)
        ratios = np.median(candidate[rounds].reshape(_RESAMPLES, -1), axis=1)
        ratios /= np.median(reference[rounds].reshape(_RESAMPLES, -1), axis=1)
        low, high = (float(x) for x in np.quantile(ratios, _tails(level)))
        method = f"bootstrap over {len(candidate)} paired rounds"
    return value, Interval(low=min(low, value), high=max(high, value), level=level, method=method)


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


def _score(b: int, c: int, n: int, delta: float) -> float:
    """Tango's statistic at the difference ``delta``; falls with ``delta``.

    With q the share of "only the second" and q + δ that of "only the first", setting the derivative of the
    multinomial log-likelihood b·ln(q + δ) + c·ln q + (n − b − c)·ln(1 − 2q − δ) to zero gives
    2n·q² + ((2n − b + c)δ − b − c)·q − cδ(1 − δ) = 0; the variance of b − c is then n(2q + δ(1 − δ)).
    """
    linear = (2 * n - b + c) * delta - b - c
    constant = -c * delta * (1 - delta)
    q = (math.sqrt(max(linear**2 - 8 * n * constant, 0.0)) - linear) / (4 * n)
    variance = n * (2 * q + delta * (1 - delta))
    distance = b - c - n * delta
    if variance <= 1e-12 * n:
        return math.copysign(math.inf, distance) if distance else 0.0
    return distance / math.sqrt(variance)


def _score_root(b: int, c: int, n: int, *, z: float, low: float, high: float) -> float:
    """Where the score equals ``z`` between ``low`` and ``high``."""

    def excess(delta: float) -> float:
        return max(min(_score(b, c, n, delta), 1e6), -1e6) - z

    if excess(low) <= 0:
        return low
    if excess(high) >= 0:
        return high
    return float(optimize.brentq(excess, low, high, xtol=1e-12))


def _resampled(blocks: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, blocks, (_RESAMPLES, blocks))


def _tails(level: float) -> list[float]:
    return [0.5 - level / 2, 0.5 + level / 2]
