"""Shares of samples, alone and paired: score intervals and the sign test."""

from __future__ import annotations

import numpy as np
from scipy import optimize, special, stats

from edgeopt.core.measurement import Interval

__all__ = ["exceeds_p", "mcnemar_p", "paired_difference", "proportion", "score_statistic"]

_LEVEL = 0.95


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


def exceeds_p(only_first: int, only_second: int, n: int, difference: float) -> float:
    """The one-sided p-value of "the shares differ by no more than ``difference``".

    The larger one of two: Tango's score statistic, so that it is below 0.025 only where ``difference`` lies below the
    interval of ``paired_difference``; and the signed root of the likelihood ratio, which keeps its level in the far
    tail, where an adjustment for many comparisons looks (Severini, Likelihood Methods in Statistics, section 4.4).
    """
    b, c = np.asarray(only_first, np.float64), np.asarray(only_second, np.float64)
    score = float(score_statistic(b, c, n, difference))
    q = float(_restricted(b, c, n, difference))
    counts = np.array([b, c, n - b - c])
    shares = np.array([q + difference, q, 1 - 2 * q - difference])
    ratio = float(special.xlogy(counts, counts / n).sum() - special.xlogy(counts, np.maximum(shares, 0.0)).sum())
    root = np.copysign(np.sqrt(2 * max(ratio, 0.0)), score)
    return float(max(stats.norm.sf(score), stats.norm.sf(root)))


def mcnemar_p(only_first: int, only_second: int) -> float:
    """The exact two-sided p-value of "both err equally often" (McNemar): a sign test on the discordant pairs."""
    discordant = only_first + only_second
    return float(stats.binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0


def score_statistic(b: np.ndarray, c: np.ndarray, n: int, delta: float) -> np.ndarray:
    """Tango's statistic at the difference ``delta``; falls with ``delta``.

    With q the share of "only the second" and q + δ that of "only the first", setting the derivative of the
    multinomial log-likelihood b·ln(q + δ) + c·ln q + (n − b − c)·ln(1 − 2q − δ) to zero gives
    2n·q² + ((2n − b + c)δ − b − c)·q − cδ(1 − δ) = 0; the variance of b − c is then n(2q + δ(1 − δ)).

    Args:
        b: Samples on which only the first was successful; ``c``: only the second; arrays of one shape.
        n: All samples.

    Returns:
        ±infinity where the variance vanishes and the difference is not ``delta``.
    """
    q = _restricted(b, c, n, delta)
    variance = n * (2 * q + delta * (1 - delta))
    distance = b - c - n * delta
    flat = variance <= 1e-12 * n
    with np.errstate(divide="ignore", invalid="ignore"):
        score = distance / np.sqrt(np.where(flat, 0.0, variance))
    return np.where(distance == 0, 0.0, score)


def _restricted(b: np.ndarray, c: np.ndarray, n: int, delta: float) -> np.ndarray:
    """The likeliest q at the difference ``delta``, the root of the equation in ``score_statistic``."""
    linear = (2 * n - b + c) * delta - b - c
    constant = -c * delta * (1 - delta)
    return np.asarray((np.sqrt(np.maximum(linear**2 - 8 * n * constant, 0.0)) - linear) / (4 * n))


def _score_root(b: int, c: int, n: int, *, z: float, low: float, high: float) -> float:
    """Where the score equals ``z`` between ``low`` and ``high``."""
    counts = np.array([b, c], dtype=np.float64)

    def excess(delta: float) -> float:
        return max(min(float(score_statistic(counts[0], counts[1], n, delta)), 1e6), -1e6) - z

    if excess(low) <= 0:
        return low
    if excess(high) >= 0:
        return high
    return float(optimize.brentq(excess, low, high, xtol=1e-12))
