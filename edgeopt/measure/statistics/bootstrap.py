"""The paired BCa bootstrap, for figures that have no interval in closed form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np
from scipy import stats

from edgeopt.core.measurement import Interval

__all__ = ["FEWEST_SAMPLES", "bootstrap", "bootstrap_mean"]

_LEVEL = 0.95
_RESAMPLES = 2000
_JACKKNIFE = 200  # groups that are left out in turn; one sample each where there are no more
FEWEST_SAMPLES = 10
"""Below so many samples a resample repeats too much for any interval."""
_KEPT = 2**26  # bytes of resamples that are drawn once for all figures of one test split
_CHUNK = 100
_DRAWN = 2**18  # places that are drawn at once: they stay in the processor's cache


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
    value = figure(np.ones(n, np.int64))
    drawn = np.array([figure(row) for chunk in _drawn(n, seed, resamples) for row in chunk.astype(np.int64)])
    left_out = np.array([figure(weights) for weights in _without_groups(n, seed)])
    return _bca(value, drawn, left_out, level)


def bootstrap_mean(
    values: np.ndarray, *, seed: int, scale: float = 1.0, level: float = _LEVEL, resamples: int = _RESAMPLES
) -> Interval | None:
    """``bootstrap`` of ``scale`` times the mean of ``values``, at a fraction of its time.

    Args:
        values: float64 [n]: of paired samples their differences.
    """
    n, values = len(values), values.astype(np.float64)
    if n < FEWEST_SAMPLES:
        return None
    drawn = np.concatenate([chunk.astype(np.float64) @ values for chunk in _drawn(n, seed, resamples)]) / n
    sums = np.array([(values[group].sum(), len(group)) for group in _groups(n, seed)])
    left_out = (values.sum() - sums[:, 0]) / (n - sums[:, 1])
    return _bca(scale * float(values.mean()), scale * drawn, scale * left_out, level)


def _bca(value: float, drawn: np.ndarray, left_out: np.ndarray, level: float) -> Interval | None:
    """The interval of bias-corrected and accelerated percentiles."""
    resamples = len(drawn)
    drawn = drawn[np.isfinite(drawn)]
    if not np.isfinite(value) or len(drawn) < 0.95 * resamples:
        return None
    method = f"BCa bootstrap, {len(drawn)} resamples"
    if np.ptp(drawn) <= 1e-12 * max(abs(value), 1e-300):
        return Interval(low=value, high=value, level=level, method=method)
    below = (np.sum(drawn < value) + 0.5 * np.sum(drawn == value)) / len(drawn)
    bias = float(stats.norm.ppf(np.clip(below, 0.5 / len(drawn), 1 - 0.5 / len(drawn))))
    acceleration = _acceleration(left_out[np.isfinite(left_out)])
    tails = []
    for quantile in (0.5 - level / 2, 0.5 + level / 2):
        shifted = bias + float(stats.norm.ppf(quantile))
        tails.append(float(stats.norm.cdf(bias + shifted / (1 - acceleration * shifted))))
    low, high = (float(x) for x in np.quantile(drawn, tails))
    return Interval(low=min(low, value), high=max(high, value), level=level, method=method)


def _acceleration(left_out: np.ndarray) -> float:
    """Skewness of the jackknife values, over six."""
    if not len(left_out):
        return 0.0
    distance = left_out.mean() - left_out
    spread = float(np.sum(distance**2)) ** 1.5
    return float(np.sum(distance**3)) / (6 * spread) if spread else 0.0


def _without_groups(n: int, seed: int) -> Iterator[np.ndarray]:
    """Weights int64 [n] that leave one group of samples out in turn."""
    for group in _groups(n, seed):
        weights = np.ones(n, np.int64)
        weights[group] = 0
        yield weights


def _groups(n: int, seed: int) -> list[np.ndarray]:
    """All samples in at most 200 groups, int64 each."""
    return np.array_split(np.random.default_rng([seed, 1]).permutation(n), min(n, _JACKKNIFE))


def _drawn(n: int, seed: int, resamples: int) -> Iterator[np.ndarray]:
    """Weights [about 100, n] of all resamples; those of small test splits are drawn once and kept."""
    if n * resamples <= _KEPT:
        kept = _kept(n, seed, resamples)
        yield from (kept[start : start + _CHUNK] for start in range(0, resamples, _CHUNK))
    else:
        rng = np.random.default_rng(seed)
        yield from (_counts(rng, n, min(_CHUNK, resamples - start)) for start in range(0, resamples, _CHUNK))


@lru_cache(maxsize=1)
def _kept(n: int, seed: int, resamples: int) -> np.ndarray:
    return _counts(np.random.default_rng(seed), n, resamples)


def _counts(rng: np.random.Generator, n: int, rows: int) -> np.ndarray:
    """How often each sample was drawn, uint8 [rows, n]: 256 times the same of many is not drawn in this world."""
    counts, block = np.empty((rows, n), np.uint8), max(1, _DRAWN // n)
    for start in range(0, rows, block):
        part = counts[start : start + block]
        places = rng.integers(0, n, part.shape) + n * np.arange(len(part))[:, None]
        part[:] = np.minimum(np.bincount(places.ravel(), minlength=part.size), 255).reshape(part.shape)
    return counts
