"""Latencies that were recorded on two days: nothing is paired, so whole blocks of each are resampled on their own."""

from __future__ import annotations

import numpy as np

from edgeopt.bundle.baseline import Baseline
from edgeopt.core.measurement import Interval, Measurement, not_measured

__all__ = ["NOISE_FLOOR", "recorded_ratios", "widened"]

NOISE_FLOOR = "latency_noise_ratio"
"""An engine's median latency over its own in a second process, where that was measured: it widens what is compared."""

_QUANTILES = {"latency_ratio": 0.5, "latency_p99_ratio": 0.99}
_LEVEL = 0.95
_RESAMPLES = 2000
_FEWEST_BLOCKS = 5


def recorded_ratios(candidate: Baseline, baseline: Baseline, *, seed: int) -> dict[str, Measurement]:
    """``latency_ratio`` (p50) and ``latency_p99_ratio`` from raw samples in the order they were taken.

    The percentile bootstrap over blocks of each side. It covers what happened within the two runs, not that the
    machine was another one on the other day; a recorded noise floor widens it.
    """
    sides = [_blocks(candidate), _blocks(baseline)]
    if any(len(blocks) < _FEWEST_BLOCKS for blocks in sides):
        reason = f"fewer than {_FEWEST_BLOCKS} blocks of latencies were recorded"
        return {name: not_measured(name, "1", reason) for name in _QUANTILES}
    rng = np.random.default_rng(seed)
    floor = max(_floor(candidate), _floor(baseline))
    ratios = {}
    for name, q in _QUANTILES.items():
        value = float(np.quantile(sides[0], q) / np.quantile(sides[1], q))
        drawn = _drawn(sides[0], q, rng) / _drawn(sides[1], q, rng)
        low, high = (float(x) for x in np.quantile(drawn, [0.5 - _LEVEL / 2, 0.5 + _LEVEL / 2]))
        method = f"bootstrap over {len(sides[0])} and {len(sides[1])} blocks, unpaired"
        interval = Interval(low=min(low, value), high=max(high, value), level=_LEVEL, method=method)
        ratios[name] = Measurement(
            name=name,
            value=value,
            unit="1",
            interval=widened(interval, floor),
            n=sides[0].size,
            device=candidate.device.name,
            conditions={"how": "recorded on two occasions", "noise_floor_pct": 100 * floor if floor else None},
        )
    return ratios


def widened(interval: Interval, floor: float) -> Interval:
    """The interval of a ratio, wider by a share both ways: what two runs of one engine differ by is no difference."""
    if floor <= 0:
        return interval
    method = f"{interval.method}, widened by a noise floor of {100 * floor:.2g} %"
    return Interval(
        low=interval.low / (1 + floor), high=interval.high * (1 + floor), level=interval.level, method=method
    )


def _floor(side: Baseline) -> float:
    """How far from 1 the ratio of an engine to itself reaches, as a share; 0 where it was not recorded."""
    figure = side.figure(NOISE_FLOOR)
    if figure is None or figure.value is None:
        return 0.0
    low, high = (figure.interval.low, figure.interval.high) if figure.interval else (figure.value, figure.value)
    return max(high, 1 / low, 1.0) - 1


def _blocks(side: Baseline) -> np.ndarray:
    """float64 [blocks, samples per block]; what does not fill the last block is left out."""
    size = side.latency_block
    if not size or not side.latency_ms:
        return np.empty((0, 1))
    samples = np.asarray(side.latency_ms, np.float64)
    return samples[: len(samples) // size * size].reshape(-1, size)


def _drawn(blocks: np.ndarray, q: float, rng: np.random.Generator) -> np.ndarray:
    rows = rng.integers(0, len(blocks), (_RESAMPLES, len(blocks)))
    found: np.ndarray = np.quantile(blocks[rows].reshape(_RESAMPLES, -1), q, axis=1)
    return found
