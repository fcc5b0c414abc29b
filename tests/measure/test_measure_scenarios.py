from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeopt.measure.latency import measure_latency
from edgeopt.measure.scenarios import poisson_schedule
from edgeopt.recipes.schema import Measure

SAMPLE = {"x": np.ones((2, 4), np.float32)}
CONFIG = Measure(batch_sizes=(1, 4), latency_samples=20, block=4, warmup=3, warmup_within_pct=50, warmup_most=30)


def measured(device, engine, **changes):
    config = CONFIG.model_copy(update=changes)
    found = measure_latency(device, {"it": engine}, sample=SAMPLE, config=config, batch=1, cold_starts=1)["it"]
    assert not found.failed
    return found


def test_only_single_stream_is_measured_unless_asked(device, engine_of):
    found = measured(device, engine_of("null"))
    assert not [m.name for m in found.measurements if m.name.startswith(("multi", "offline", "server"))]
    assert found.figure("latency_p99_ms").conditions["scenario"] == "single-stream"


def test_every_scenario_gives_its_own_figure(device, linear):
    engine = linear("net", np.ones((4, 3)))
    found = measured(
        device, engine, scenarios=("multi-stream", "offline", "server"), server_qps=400.0, server_seconds=1.0
    )
    query = found.figure("multi_stream_p99_ms")
    assert query.conditions["scenario"] == "multi-stream"
    assert query.conditions["query"] == "one inference at batch 8"
    assert (query.n, query.unit) == (20, "ms")
    offline = found.figure("offline_per_s")
    rates = [m for m in found.measurements if m.name == "throughput_per_s"]
    assert offline.value == max(m.value for m in rates)
    assert offline.conditions["best_of_batches"] == "1, 4"
    served = found.figure("server_p99_ms")
    assert served.n == 400
    assert (served.conditions["qps"], served.conditions["rate"]) == (400.0, "as asked")
    assert 0 < served.conditions["utilisation"] < 1
    assert served.interval.low <= served.value <= served.interval.high


def test_a_fixed_batch_makes_a_query_of_several_inferences(device, linear):
    engine = linear("net", np.ones((4, 3)), batch=1)
    found = measured(device, engine, scenarios=("multi-stream",), samples_per_query=3)
    assert found.figure("multi_stream_p50_ms").conditions["query"] == "3 inferences at batch 1"


def test_queueing_counts_in_the_latency_of_a_server(device, engine_of):
    """2 ms of service at 2 ms between arrivals: the engine is always busy, so queries wait."""
    found = measured(device, engine_of("steady"), scenarios=("server",), server_qps=600.0, server_seconds=0.5)
    served, alone = found.figure("server_p50_ms"), found.figure("latency_p50_ms")
    assert served.value > 5 * alone.value  # beyond its capacity every query waits for all before it
    assert "growing" in served.conditions["backlog"]


def test_the_highest_rate_within_a_bound_is_searched(device, engine_of):
    found = measured(device, engine_of("null"), scenarios=("server",), server_p99_ms=50.0, server_seconds=0.02)
    best = found.figure("server_qps")
    assert best.value > 0
    assert best.conditions["p99_bound_ms"] == 50.0
    assert best.conditions["p99_confirmed_ms"] <= 50.0
    assert best.interval.low == best.value <= best.interval.high
    assert found.figure("server_p99_ms").conditions["rate"] == "the highest that held the bound"


def test_a_bound_that_no_rate_holds_is_told(device, engine_of):
    found = measured(device, engine_of("steady"), scenarios=("server",), server_p99_ms=0.5, server_seconds=0.1)
    assert "p99 exceeds 0.5 ms already at" in found.figure("server_qps").reason


@given(qps=st.floats(0.1, 1e5), seed=st.integers(0, 2**31), queries=st.integers(1, 500))
@settings(max_examples=50, deadline=None)
def test_arrivals_ascend_and_scale_with_the_rate(qps, seed, queries):
    schedule = poisson_schedule(qps, queries, seed)
    assert len(schedule) == queries
    assert all(a <= b for a, b in itertools.pairwise(schedule))
    assert poisson_schedule(qps, queries, seed) == schedule
    assert poisson_schedule(qps * 2, queries, seed)[-1] == pytest.approx(schedule[-1] / 2, abs=1)


def test_arrivals_are_poisson():
    gaps = np.diff(np.array(poisson_schedule(100.0, 20_000, 3))) / 1e9
    assert gaps.mean() == pytest.approx(0.01, rel=0.03)
    assert gaps.std() == pytest.approx(0.01, rel=0.05)  # of an exponential, as large as its mean


def test_warm_up_goes_on_until_the_engine_is_steady(device, engine_of):
    config = {"warmup_within_pct": 25.0, "warmup_most": 400}
    found = measured(device, engine_of("warming"), **config)
    at = found.figure("latency_p50_ms").conditions
    assert at["warmup_converged"] is True
    assert at["warmup"] >= 50  # the first level that can be three windows old
    assert found.warnings == ()


def test_a_warm_up_that_never_becomes_steady_is_told(device, engine_of):
    found = measured(device, engine_of("restless"), warmup_within_pct=5.0, warmup_most=60)
    assert found.figure("latency_p50_ms").conditions["warmup_converged"] is False
    assert found.warnings == ("The latency was not steady yet after 60 inferences of warm-up.",)


def test_a_recipe_may_ask_for_a_count_alone(device, engine_of):
    at = measured(device, engine_of("null"), warmup=7, warmup_within_pct=None).figure("latency_p50_ms").conditions
    assert at["warmup"] == 7
    assert "warmup_converged" not in at


def test_load_time_and_memory_over_time_are_told(device, engine_of):
    found = measured(device, engine_of("slow-start"))
    assert found.figure("load_ms").value >= 200
    assert found.figure("load_ms").value <= found.figure("cold_start_ms").value
    seconds = [at for at, _ in found.resident_mib]
    assert seconds[0] == 0
    assert seconds == sorted(seconds)
    assert all(mib > 1 for _, mib in found.resident_mib)
    assert len(seconds) > 5  # one at the start, one per block


def test_energy_is_a_figure_or_a_reason(device, engine_of):
    energy = measured(device, engine_of("null")).figure("energy_per_inference_mj")
    assert energy.value is None or energy.value > 0
    assert energy.value is not None or "no energy counter" in energy.reason or "read" in energy.reason
