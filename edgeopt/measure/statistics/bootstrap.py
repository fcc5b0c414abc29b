"""The paired BCa bootstrap, for figures that have no interval in closed form."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import stats

from edgeopt.core.measurement import Interval

__all__ = ["FEWEST_SAMPLES", "bootstrap"]

_LEVEL = 0.95
_RESAMPLES = 2000
_JACKKNIFE = 200  # groups that are left out in turn; one sample each where there are no more
FEWEST_SAMPLES = 10
"""Below so many samples a resample repeats too much for any interval."""


def bootstrap(
    figure: Callable[[np.ndarray], float], n: int, *, seed: int, level: float = _LEVEL, resamples: int = _RESAMPLES
) -> Interval | None:
    """BCa interval of ``figure`` over ``n`` samples (Efron, Journal of the American Statistical Association 82, 1987).

    Samples are resampled as a whole: where ``figure`` is the difference of two models' figures under the same weights,
    the interval is that of paired samples. The acceleration comes from a jackknife over at most 200 groups of samples
    (Efron & Tibshirani, An Introduction to the Bootstrap, section 14.3; in groups: Shao & Tu, The Jackknife and
    Bootstrap, section 2.3), so that its cost does not grow with n.

    Args:
        figure: Called with weights int64 [n], how often each sample counts; may answer NaN where it is not defined.
        n: Samples.
        seed: Of the resamples and of the groups.

    Returns:
        None where there are too few samples, or the figure is not defined on nearly all resamples.
    """
    if n < FEWEST_SAMPLES:
        return None
    rng = np.random.default_rng(seed)
    value = figure(np.ones(n, np.int64))
    drawn = np.array([figure(np.bincount(rng.integers(0, n, n), minlength=n)) for _ in range(resamples)])
    drawn = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or len(drawn) < 0.95 * resamples:
        return None
    method = f"BCa bootstrap, {len(drawn)} resamples"
    if np.ptp(drawn) == 0:
        return Interval(low=float(drawn[0]), high=float(drawn[0]), level=level, method=method)
    below = (np.sum(drawn < value) + 0.5 * np.sum(drawn == value)) / len(drawn)
    bias = float(stats.norm.ppf(np.clip(below, 0.5 / len(drawn), 1 - 0.5 / len(drawn))))
    acceleration = _acceleration(figure, n, rng)
    tails = []
    for quantile in (0.5 - level / 2, 0.5 + level / 2):
        shifted = bias + float(stats.norm.ppf(quantile))
        tails.append(float(stats.norm.cdf(bias + shifted / (1 - acceleration * shifted))))
    low, high = (float(x) for x in np.quantile(drawn, tails))
    return Interval(low=min(low, value), high=max(high, value), level=level, method=method)


def _acceleration(figure: Callable[[np.ndarray], float], n: int, rng: np.random.Generator) -> float:
    """Skewness of the jackknife values, over six."""
    groups = np.array_split(rng.permutation(n), min(n, _JACKKNIFE))
    left_out = []
    for group in groups:
        weights = np.ones(n, np.int64)
        weights[group] = 0
        left_out.append(figure(weights))
    values = np.array([value for value in left_out if np.isfinite(value)])
    distance = values.mean() - values if len(values) else np.zeros(1)
    spread = float(np.sum(distance**2)) ** 1.5
    return float(np.sum(distance**3)) / (6 * spread) if spread else 0.0
