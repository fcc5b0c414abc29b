from __future__ import annotations

import math

import numpy as np
import pytest

from edgeopt.core.errors import DataError
from edgeopt.measure.figures import memory as memory_figure
from edgeopt.measure.latency import EngineFigures, latency_ratio, measure_latency
from edgeopt.recipes.schema import Measure

CONFIG = Measure(batch_sizes=(1, 3), threads=1, latency_samples=20, block=2, warmup=3)
SAMPLE = {"x": np.ones((2, 4), np.float32)}


@pytest.fixture
def two(linear):
    rng = np.random.default_rng(0)
    return {"fp32": linear("fp32", rng.normal(size=(4, 3))), "int8": linear("int8", rng.normal(size=(4, 3)))}


def test_engines_are_measured_side_by_side(device, two):
    seen = []
    found = measure_latency(device, two, sample=SAMPLE, config=CONFIG, batch=1, progress=seen.append)
    assert list(found) == ["fp32", "int8"]
    for name, figures in found.items():
        assert not figures.failed
        p50, p90, p95, p99 = (figures.figure(f"latency_p{q}_ms") for q in (50, 90, 95, 99))
        assert 0 < p50.value <= p90.value <= p95.value <= p99.value
        assert (p50.n, p50.unit, p50.device) == (20, "ms", device.name)
        assert len(figures.latency_ms) == 20
        assert p50.value == pytest.approx(np.median(figures.latency_ms))
        assert p50.interval.low <= p50.value <= p50.interval.high
        assert p50.conditions["interleaved_with"] == ("int8" if name == "fp32" else "fp32")
        assert (p50.conditions["threads"], p50.conditions["batch"], p50.conditions["block"]) == (1, 1, 2)
        assert p50.conditions["runtime_version"] == figures.runtime_version != "0"
        cold = figures.figure("cold_start_ms")
        assert cold.n == 3
        assert cold.interval.low <= cold.value <= cold.interval.high
        assert cold.interval.level == pytest.approx(0.75)
        assert cold.conditions["runtime_import_ms"] > 0
        rates = [m for m in figures.measurements if m.name == "throughput_per_s"]
        assert [m.conditions["batch"] for m in rates] == [1, 3]
        assert all(m.interval.low <= m.value <= m.interval.high for m in rates)
        size = figures.figure("size_mib")
        assert size.value == pytest.approx((two[name].path).stat().st_size / 2**20)
    assert [p.done for p in seen] == list(range(1, seen[-1].total + 1))
    ratio = latency_ratio(found["int8"], found["fp32"])
    assert ratio.value == pytest.approx(np.median(found["int8"].latency_ms) / np.median(found["fp32"].latency_ms))
    assert ratio.interval.low <= ratio.value <= ratio.interval.high
    assert (ratio.unit, ratio.n, ratio.device) == ("1", 20, device.name)


def test_memory_is_told_above_the_runtimes_baseline(device, two):
    figure = measure_latency(device, two, sample=SAMPLE, config=CONFIG, batch=1, cold_starts=1)["int8"].figure(
        "peak_memory_mib"
    )
    if figure.value is None:
        pytest.skip(f"this kernel does not tell a process's peak: {figure.reason}")
    assert 0 < figure.value < 100
    assert "VmHWM" in figure.conditions["how"]
    assert figure.conditions["baseline_mib"] > figure.value


def test_memory_that_cannot_be_read_says_why():
    figure = memory_figure({"unavailable": "Permission denied"}, {"batch": 1}, "board")
    assert (figure.value, figure.reason) == (None, "Permission denied")


def test_a_batch_that_an_engine_cannot_take_is_not_measured_with_the_reason(device, linear):
    engines = {"static": linear("static", np.ones((4, 3)), batch=1), "dynamic": linear("dynamic", np.ones((4, 3)))}
    found = measure_latency(device, engines, sample=SAMPLE, config=CONFIG, batch=1, cold_starts=1)
    one, three = (m for m in found["static"].measurements if m.name == "throughput_per_s")
    assert one.value > 0
    assert three.value is None
    assert "compiled for a batch of 1 and cannot take 3" in three.reason
    assert three.conditions["batch"] == 3
    assert all(m.value for m in found["dynamic"].measurements if m.name == "throughput_per_s")
    assert found["static"].figure("cold_start_ms").interval is None  # one start has no interval


def test_an_engine_that_cannot_be_loaded_does_not_end_the_others(device, two, engine_of):
    engines = {**two, "broken": engine_of("no-load")}
    found = measure_latency(device, engines, sample=SAMPLE, config=CONFIG, batch=1, cold_starts=1)
    assert "int8 is not supported on this CPU" in found["broken"].failed
    assert found["broken"].latency_ms == ()
    assert all(m.value is None for m in found["broken"].measurements if m.name != "size_mib")
    assert found["fp32"].figure("latency_p50_ms").value > 0
    assert "not supported" in latency_ratio(found["broken"], found["fp32"]).reason


def test_an_engine_that_crashes_in_the_middle_does_not_end_the_others(device, two, engine_of):
    engines = {"fragile": engine_of("fragile"), **two}
    found = measure_latency(device, engines, sample=SAMPLE, config=CONFIG, batch=1, cold_starts=1)
    assert "SIGABRT" in found["fragile"].failed
    assert found["int8"].figure("latency_p50_ms").n == 20


def test_every_engine_failing_is_told_and_nothing_hangs(device, engine_of):
    seen = []
    engines = {"a": engine_of("no-load")}
    found = measure_latency(device, engines, sample=SAMPLE, config=CONFIG, batch=1, progress=seen.append)
    assert found["a"].failed
    assert seen[-1].done == seen[-1].total


def test_what_an_engine_did_on_its_own_is_kept(device, engine_of):
    found = measure_latency(device, {"a": engine_of("slow-start")}, sample=SAMPLE, config=CONFIG, batch=2)
    assert found["a"].fallbacks == ("provider Foo was not there",)
    assert found["a"].runtime_version == "3.1"
    # Loading sleeps 200 ms: cold start counts it in each of its fresh processes, latency does not.
    assert found["a"].figure("cold_start_ms").interval.low >= 200
    assert found["a"].figure("latency_p50_ms").value < 100


def test_the_null_runner_measures_the_harness(device, engine_of):
    found = measure_latency(device, {"null": engine_of("null")}, sample=SAMPLE, config=CONFIG, batch=1, cold_starts=1)
    p50 = found["null"].figure("latency_p50_ms")
    assert p50.value > 0
    assert p50.conditions["interleaved_with"] == "nothing"


def test_fewer_samples_than_blocks_still_make_rounds_to_pair(device, engine_of):
    config = Measure(batch_sizes=(), latency_samples=11, block=50, warmup=0)
    found = measure_latency(device, {"null": engine_of("null")}, sample=SAMPLE, config=config, batch=1, cold_starts=1)
    assert found["null"].blocks_ms.shape == (5, math.ceil(11 / 5))


def test_no_sample_is_an_error(device, engine_of):
    with pytest.raises(DataError, match="no sample to measure with"):
        measure_latency(device, {}, sample={}, config=CONFIG, batch=1)
    with pytest.raises(DataError, match="at least one real sample"):
        measure_latency(device, {}, sample={"x": np.ones((0, 4), np.float32)}, config=CONFIG, batch=1)


def test_a_ratio_needs_both_sides():
    failed = EngineFigures(measurements=(), blocks_ms=np.empty((0, 0)), failed="died")
    assert latency_ratio(failed, failed).reason == "died"
