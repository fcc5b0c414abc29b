"""Two engines against each other, beside the ratio that no difference at all produces here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edgeopt.core.device import Host
from edgeopt.core.engine import Engine
from edgeopt.core.events import ProgressListener, ignore_progress
from edgeopt.core.measurement import Measurement
from edgeopt.measure import statistics
from edgeopt.measure.latency import EngineFigures, MoreRounds, latency_p99_ratio, latency_ratio, paired_ratio
from edgeopt.measure.latency import measure_latency as _measure
from edgeopt.recipes.schema import Measure

__all__ = ["Comparison", "compare_engines", "floor_share", "too_noisy", "until_precise"]

_CANDIDATE, _BASELINE, _AGAIN = "candidate", "baseline", "baseline again"
_FEWEST_ROUNDS = 20  # both ratios are bootstrapped over rounds
_LOOKS = 8  # each look at an interval is one more chance to stop at a lucky one


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A candidate beside a baseline.

    Attributes:
        p50_ratio: ``latency_ratio``: the candidate's median over the baseline's.
        p99_ratio: ``latency_p99_ratio``, likewise.
        noise_floor: ``latency_noise_ratio``: the baseline's median over that of a second process of the same engine,
            timed in turns with the others. What its interval reaches to is what this machine makes of no difference.
        noise_floor_p99: ``latency_p99_noise_ratio``, likewise.
        candidate: All that was measured of it; ``baseline`` likewise.
        inconclusive: Why the machine cannot answer at the precision asked for; empty where it can, or none was asked.
    """

    p50_ratio: Measurement
    p99_ratio: Measurement
    noise_floor: Measurement
    noise_floor_p99: Measurement
    candidate: EngineFigures
    baseline: EngineFigures
    inconclusive: str = ""


def compare_engines(
    device: Host,
    candidate: Engine,
    baseline: Engine,
    *,
    sample: Mapping[str, np.ndarray],
    config: Measure,
    batch: int,
    precision: float | None = None,
    progress: ProgressListener = ignore_progress,
    seed: int = 0,
) -> Comparison:
    """Time a candidate, a baseline and the baseline once more, in turns, each in a process of its own.

    Args:
        sample: Real samples, one array per input name.
        config: At least 20 rounds are taken whatever ``latency_samples`` says, in smaller blocks if need be.
        precision: How far the interval of the ratio of medians may reach to either side, as a share (0.05); rounds are
            added until it is so narrow, or for ``config.precision_limit_s``. None: ``config.precision``.
        seed: Of the order and of the bootstrap.

    Raises:
        DataError: There is no sample.
    """
    precision = config.precision if precision is None else precision
    engines = {_CANDIDATE: candidate, _BASELINE: baseline, _AGAIN: baseline}
    block = max(1, min(config.block, config.latency_samples // _FEWEST_ROUNDS))
    samples = max(config.latency_samples, _FEWEST_ROUNDS * block)
    config = config.model_copy(update={"block": block, "latency_samples": samples, "scenarios": ("single-stream",)})
    more = None
    if precision is not None:
        more = until_precise(precision, config.precision_limit_s, ((_CANDIDATE, _BASELINE), (_AGAIN, _BASELINE)))
    found = _measure(
        device,
        engines,
        sample=sample,
        config=config,
        batch=batch,
        progress=progress,
        seed=seed,
        cold_starts=1,
        more=more,
    )
    ours, theirs, again = found[_CANDIDATE], found[_BASELINE], found[_AGAIN]
    ratio = latency_ratio(ours, theirs, seed=seed)
    floor = paired_ratio("latency_noise_ratio", again, theirs, seed=seed)
    return Comparison(
        p50_ratio=ratio,
        p99_ratio=latency_p99_ratio(ours, theirs, seed=seed),
        noise_floor=floor,
        noise_floor_p99=paired_ratio("latency_p99_noise_ratio", again, theirs, q=0.99, seed=seed),
        candidate=ours,
        baseline=theirs,
        inconclusive="" if precision is None else too_noisy(ratio, floor, precision),
    )


def until_precise(
    precision: float,
    limit_s: float,
    pairs: tuple[tuple[str, str], ...],
) -> MoreRounds:
    """A ``more`` for ``measure_latency``: further rounds until every pair's ratio of medians is told to ``precision``.

    The interval narrows with the square root of the rounds, so each look asks for what is still missing by that, at most
    as many rounds again; 8 looks are all.

    Args:
        limit_s: No rounds are added beyond this; what they take is told by those before.
        pairs: Names of engines: candidate, reference.
    """
    looks = 0

    def more(blocks: Mapping[str, np.ndarray]) -> int:
        nonlocal looks
        looks += 1
        rounds = len(next(iter(blocks.values())))
        spent_s = sum(float(taken.sum()) for taken in blocks.values()) / 1e3
        alive = [(blocks[a], blocks[b]) for a, b in pairs if a in blocks and b in blocks]
        if not alive:
            return 0
        ratios = [statistics.ratio_of_medians(ours, theirs, seed=0)[1] for ours, theirs in alive]
        widest = max(statistics.half_width(interval) for interval in ratios)
        if widest <= precision or looks > _LOOKS:
            return 0
        missing = math.ceil(rounds * ((widest / precision) ** 2 * 1.1 - 1))
        affordable = int((limit_s - spent_s) / spent_s * rounds)
        return max(0, min(missing, rounds, affordable))

    return more


def floor_share(noise: Measurement) -> float | None:
    """How far from 1 the ratio of an engine to itself reaches: the larger end of its interval, as a share."""
    if noise.value is None or noise.interval is None:
        return None
    return max(noise.interval.high, 1 / noise.interval.low) - 1


def too_noisy(ratio: Measurement, floor: Measurement, precision: float) -> str:
    """Why no answer at ``precision`` can be given; empty where one can."""
    share = floor_share(floor)
    if ratio.interval is None or share is None:
        return ratio.reason or floor.reason or "the ratio has no interval"
    if share > precision:
        return (
            f"an engine differs from itself by up to {share:.1%} on this machine (its noise floor), "
            f"which is more than the {precision:.1%} asked for"
        )
    reached = statistics.half_width(ratio.interval)
    if reached > precision:
        return f"the ratio is told to ± {reached:.1%} after {ratio.n} inferences, not to the {precision:.1%} asked for"
    return ""
