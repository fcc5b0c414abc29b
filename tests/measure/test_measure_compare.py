from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeopt.core.measurement import Interval, Measurement
from edgeopt.measure import statistics
from edgeopt.measure.compare import compare_engines, floor_share, until_precise
from edgeopt.recipes.schema import Measure

SAMPLE = {"x": np.ones((2, 4), np.float32)}
CONFIG = Measure(batch_sizes=(), latency_samples=400, block=50, warmup=3, warmup_within_pct=50, warmup_most=30)


def test_a_slower_candidate_is_told_with_the_noise_floor_beside_it(device, engine_of):
    config = CONFIG.model_copy(update={"latency_samples": 60})
    found = compare_engines(device, engine_of("half-again"), engine_of("steady"), sample=SAMPLE, config=config, batch=1)
    assert found.p50_ratio.name == "latency_ratio"
    assert found.p50_ratio.interval.low > 1.1
    assert found.noise_floor.name == "latency_noise_ratio"
    assert found.noise_floor.interval.low <= found.noise_floor.value <= found.noise_floor.interval.high
    assert found.noise_floor.interval.high < found.p50_ratio.interval.low
    assert found.baseline.blocks_ms.shape == found.candidate.blocks_ms.shape == (20, 3)
    assert "60 samples in 20 rounds do not show a p99; it takes 400" in found.p99_ratio.reason
    assert found.inconclusive == ""
    assert found.candidate.figure("latency_p50_ms").conditions["interleaved_with"] == "baseline, baseline again"


def test_a_p99_ratio_comes_with_enough_samples(device, engine_of):
    found = compare_engines(device, engine_of("null"), engine_of("null"), sample=SAMPLE, config=CONFIG, batch=1)
    assert found.p99_ratio.value > 0
    assert found.p99_ratio.n == 400
    assert found.p99_ratio.interval.method == "bootstrap over 20 paired rounds"
    assert found.noise_floor_p99.value > 0


def test_a_precision_out_of_reach_is_inconclusive_with_the_floor(device, engine_of):
    config = CONFIG.model_copy(update={"precision_limit_s": 0.01})
    found = compare_engines(
        device, engine_of("null"), engine_of("null"), sample=SAMPLE, config=config, batch=1, precision=1e-6
    )
    assert "an engine differs from itself by up to" in found.inconclusive
    assert "the 0.0% asked for" in found.inconclusive


def test_a_failed_engine_makes_every_answer_say_so(device, engine_of):
    found = compare_engines(
        device, engine_of("no-load"), engine_of("null"), sample=SAMPLE, config=CONFIG, batch=1, precision=0.05
    )
    assert "not supported on this CPU" in found.p50_ratio.reason
    assert "not supported on this CPU" in found.inconclusive
    assert found.noise_floor.value > 0


def test_rounds_are_added_until_the_interval_is_narrow():
    rng = np.random.default_rng(0)

    def blocks(rounds):
        return {name: rng.lognormal(0, 0.2, (rounds, 10)) for name in "ab"}

    more = until_precise(0.02, 1e9, (("a", "b"),))
    taken = blocks(20)
    asked = []
    while further := more(taken):
        asked.append(further)
        taken = {name: np.concatenate([one, blocks(further)[name]]) for name, one in taken.items()}
    _, interval = statistics.ratio_of_medians(taken["a"], taken["b"], seed=0)
    assert asked[0] == 20  # at most as many again at one look
    assert statistics.half_width(interval) <= 0.02


def test_no_rounds_are_added_beyond_the_time_there_is():
    rng = np.random.default_rng(0)
    taken = {name: rng.lognormal(0, 0.5, (20, 10)) for name in "ab"}
    spent_s = sum(one.sum() for one in taken.values()) / 1e3
    assert until_precise(1e-3, spent_s * 1.52, (("a", "b"),))(taken) == 10
    assert until_precise(1e-3, spent_s / 2, (("a", "b"),))(taken) == 0


def test_the_floor_is_the_farther_end_of_the_interval():
    noise = Measurement(name="x", value=1.0, unit="1", interval=Interval(low=0.8, high=1.1, method=""))
    assert floor_share(noise) == pytest.approx(0.25)
    assert floor_share(Measurement(name="x", value=1.0, unit="1")) is None


@pytest.mark.parametrize("q", [0.5, 0.99])
@pytest.mark.parametrize("drift", [0.0, 0.15])
def test_the_interval_of_a_ratio_covers_the_truth(q, drift):
    """200 simulated comparisons with a true ratio of 1.1, rounds that share a drift: 95 % less what chance allows."""
    rng = np.random.default_rng(7)
    hits = 0
    for trial in range(200):
        shared = np.exp(rng.normal(0, drift, (20, 1)))
        slow, fast = (rng.lognormal(0, 0.2, (20, 20)) * shared for _ in range(2))
        _, interval = statistics.ratio_of_quantiles(1.1 * slow, fast, q, seed=trial, resamples=500)
        hits += interval.low <= 1.1 <= interval.high
    assert hits >= 178  # the 0.1 % point of a binomial of 200 at 94 %


@given(scale=st.floats(0.01, 100), seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_a_ratio_does_not_depend_on_the_unit(scale, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.lognormal(0, 0.3, (2, 12, 5))
    value, interval = statistics.ratio_of_quantiles(a, b, 0.9, seed=0, resamples=100)
    other, scaled = statistics.ratio_of_quantiles(a * scale, b * scale, 0.9, seed=0, resamples=100)
    assert other == pytest.approx(value)
    assert (scaled.low, scaled.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_rounds_that_cannot_be_paired_or_resampled_are_refused():
    with pytest.raises(ValueError, match="cannot be paired"):
        statistics.ratio_of_quantiles(np.ones((12, 2)), np.ones((11, 2)), 0.5, seed=0)
    with pytest.raises(ValueError, match="9 rounds are too few"):
        statistics.ratio_of_quantiles(np.ones((9, 2)), np.ones((9, 2)), 0.5, seed=0)
