"""Ratios of times that were taken in turns: round i of both belongs together."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from edgeopt.core.measurement import Interval

__all__ = [
    "FEWEST_FOR_P99",
    "FEWEST_ROUNDS",
    "half_width",
    "ratio_of_medians",
    "ratio_of_quantiles",
    "ratio_of_windows",
]

_LEVEL = 0.95
_RESAMPLES = 2000
_CHUNK = 4_000_000  # values that are resampled at once: 32 MiB
FEWEST_ROUNDS = 10
"""Below, the resampled rounds repeat too often for a percentile bootstrap."""
FEWEST_FOR_P99 = 400
"""With fewer samples on either side, p99 rests on less than four of them: no resampling makes an interval of that."""


def ratio_of_medians(
    candidate: np.ndarray, reference: np.ndarray, *, seed: int, level: float = _LEVEL
) -> tuple[float, Interval]:
    """The ratio of two medians whose blocks were taken in turns: block i of both belong to one round.

    Rounds are resampled, and both medians taken over the same rounds, so what slowed a whole round cancels. Below 10
    rounds: Student's t on the logarithms of each round's ratio of medians.

    Args:
        candidate: float64 [rounds, samples per block], > 0; ``reference`` likewise, with as many rounds (at least 2).
    """
    _check(candidate, reference)
    if len(candidate) >= FEWEST_ROUNDS:
        return ratio_of_quantiles(candidate, reference, 0.5, seed=seed, level=level)
    value = float(np.median(candidate) / np.median(reference))
    logs = np.log(np.median(candidate, axis=1) / np.median(reference, axis=1))
    half = float(stats.t.ppf(0.5 + level / 2, len(logs) - 1) * stats.sem(logs))
    centre = float(logs.mean())
    low, high = math.exp(centre - half), math.exp(centre + half)
    method = f"Student's t over {len(logs)} paired rounds"
    return value, Interval(low=min(low, value), high=max(high, value), level=level, method=method)


def ratio_of_quantiles(
    candidate: np.ndarray,
    reference: np.ndarray,
    q: float,
    *,
    seed: int,
    level: float = _LEVEL,
    resamples: int = _RESAMPLES,
) -> tuple[float, Interval]:
    """The ratio of two quantiles, by the percentile bootstrap over paired rounds.

    Args:
        candidate: float64 [rounds (at least 10), samples per block], > 0; ``reference`` likewise.
        q: In (0, 1).
    """
    _check(candidate, reference)
    if len(candidate) < FEWEST_ROUNDS:
        raise ValueError(f"{len(candidate)} rounds are too few to resample")
    value = float(np.quantile(candidate, q) / np.quantile(reference, q))
    rng = np.random.default_rng(seed)
    rounds, ratios = len(candidate), []
    at_once = max(1, _CHUNK // max(candidate.size, reference.size))
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        drawn = rng.integers(0, rounds, (count, rounds))
        above = np.quantile(candidate[drawn].reshape(count, -1), q, axis=1)
        ratios.append(above / np.quantile(reference[drawn].reshape(count, -1), q, axis=1))
    low, high = (float(x) for x in np.quantile(np.concatenate(ratios), [0.5 - level / 2, 0.5 + level / 2]))
    method = f"bootstrap over {rounds} paired rounds"
    return value, Interval(low=min(low, value), high=max(high, value), level=level, method=method)


def ratio_of_windows(later: np.ndarray, earlier: np.ndarray, *, level: float = _LEVEL) -> tuple[float, Interval]:
    """The ratio of two levels, each the median of windows' medians, where windows cannot be paired.

    Welch's t on the logarithms: windows of one level may scatter more than those of the other.

    Args:
        later: Each window's median, float64 [at least 2], > 0; ``earlier`` likewise.
    """
    logs = np.log(later), np.log(earlier)
    value = math.exp(float(np.median(logs[0]) - np.median(logs[1])))
    found = stats.ttest_ind(*logs, equal_var=False).confidence_interval(level)
    low, high = math.exp(float(found.low)), math.exp(float(found.high))
    if not (math.isfinite(low) and math.isfinite(high)):  # windows that are all alike have no spread
        low = high = value
    return value, Interval(low=min(low, value), high=max(high, value), level=level, method="Welch's t over windows")


def half_width(interval: Interval) -> float:
    """How far a ratio's interval reaches to either side, as a share: [0.95, 1.05] is about 0.05.

    >>> round(half_width(Interval(low=0.95, high=1.05, method="")), 3)
    0.051
    """
    return math.sqrt(interval.high / interval.low) - 1


def _check(candidate: np.ndarray, reference: np.ndarray) -> None:
    if len(candidate) != len(reference) or len(candidate) < 2:
        raise ValueError(f"{len(candidate)} and {len(reference)} rounds cannot be paired")
