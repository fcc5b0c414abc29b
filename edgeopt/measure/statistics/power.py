"""How many samples a gate on a paired drop needs, and what it can tell with those it has."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import stats

from edgeopt.measure.statistics.shares import score_statistic

__all__ = ["detectable_drop", "fail_power", "holdable_limit", "pass_power", "samples_needed"]

_LEVEL = 0.95
_REACH = 7.0  # standard deviations of each discordant count that are summed over
_MOST = 2_000_000


def pass_power(n: int, *, limit: float, drop: float, discordance: float, level: float = _LEVEL) -> float:
    """How likely a gate PASSes: the whole of Tango's interval holds ``limit``.

    Not an approximation: the probability of each pair of counts (only FP32 right, only the candidate right) whose
    interval lies inside, summed.

    Args:
        n: Test samples.
        limit: Largest drop, as a share.
        drop: The true one, as a share; at most ``discordance`` in size.
        discordance: Share of the samples on which exactly one of the two models is right.
    """
    z = float(stats.norm.ppf(0.5 + level / 2))
    return _probability(n, drop, discordance, lambda b, c: score_statistic(b, c, n, limit) <= -z)


def fail_power(n: int, *, limit: float, drop: float, discordance: float, level: float = _LEVEL) -> float:
    """How likely a gate FAILs: the whole of Tango's interval misses ``limit``. Arguments as for ``pass_power``."""
    z = float(stats.norm.ppf(0.5 + level / 2))
    return _probability(n, drop, discordance, lambda b, c: score_statistic(b, c, n, limit) > z)


def samples_needed(
    *, limit: float, drop: float, discordance: float, power: float, level: float = _LEVEL, most: int = _MOST
) -> int | None:
    """The fewest samples with which a gate comes to its verdict with probability ``power``.

    That is PASS where the true ``drop`` holds ``limit``, else FAIL. Counts are whole, so the power rises in small
    teeth; a count is taken only where 5 % more samples keep the power too.

    Returns:
        None where ``most`` samples are not enough.
    """
    verdict = pass_power if drop < limit else fail_power

    def enough(n: int) -> bool:
        return all(
            verdict(size, limit=limit, drop=drop, discordance=discordance, level=level) >= power
            for size in (n, n + max(1, n // 20))
        )

    high = 16
    while not enough(high):
        high *= 2
        if high > most:
            return None
    low = high // 2
    while high - low > max(1, high // 200):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def detectable_drop(n: int, *, limit: float, discordance: float, power: float, level: float = _LEVEL) -> float | None:
    """The smallest true drop that a gate at ``limit`` FAILs with probability ``power``; None where it never does.

    A drop cannot be larger than the discordance, so that grows with it where it must.
    """

    def fails(drop: float) -> bool:
        worst = max(discordance, drop)
        return fail_power(n, limit=limit, drop=drop, discordance=worst, level=level) >= power

    return _smallest(fails, limit, 1.0)


def holdable_limit(n: int, *, drop: float, discordance: float, power: float, level: float = _LEVEL) -> float | None:
    """The smallest limit that a true ``drop`` PASSes with probability ``power``; None where there is none below 1."""

    def passes(limit: float) -> bool:
        return pass_power(n, limit=limit, drop=drop, discordance=discordance, level=level) >= power

    return _smallest(passes, max(drop, 0.0), 1.0 - 1e-9)


def _smallest(holds: Callable[[float], bool], low: float, high: float) -> float | None:
    """By bisection, to a hundredth of a percentage point."""
    if not holds(high):
        return None
    while high - low > 1e-4:
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _probability(
    n: int, drop: float, discordance: float, happens: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> float:
    """Of an event on the two discordant counts b and c, which are multinomial.

    The sum runs over the discordant total m, binomial (n, discordance), and b given m, binomial (m, share of b).
    """
    if n < 1 or not 0 <= abs(drop) <= discordance <= 1:
        raise ValueError(f"a drop of {drop} among {n} samples of which {discordance} are discordant cannot be")
    if discordance == 0:
        zero = np.zeros((1, 1))
        return float(happens(zero, zero)[0, 0])
    first = (discordance + drop) / (2 * discordance)
    totals = _around(n, discordance)
    likely = stats.binom.pmf(totals, n, discordance)
    found = 0.0
    for total, weight in zip(totals, likely, strict=True):
        b = _around(int(total), first)
        found += float(weight) * float(np.sum(stats.binom.pmf(b, total, first) * happens(b, total - b)))
    return found


def _around(n: int, p: float) -> np.ndarray:
    """The counts that a binomial number is practically certain to be among."""
    half = _REACH * float(np.sqrt(n * p * (1 - p))) + 3
    return np.arange(max(0, int(n * p - half)), min(n, int(n * p + half)) + 1)
