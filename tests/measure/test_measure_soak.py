from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeopt.core.errors import DataError, DeviceError
from edgeopt.measure.overhead import harness_overhead, null_engine, runtime_clock
from edgeopt.measure.soak import soak_engine, throttled_from
from edgeopt.recipes.schema import Measure
from edgeopt.report.soak import page, soak_json

SAMPLE = {"x": np.ones((2, 4), np.float32)}
CONFIG = Measure(batch_sizes=(), latency_samples=20, block=4, warmup=3)


class Clock:
    """Time that passes by 1 s whenever it is looked at."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


def soaked(device, engine, seconds, **more):
    return soak_engine(device, engine, sample=SAMPLE, config=CONFIG, batch=1, seconds=seconds, **more)


def figure(soak, name):
    return next(m for m in soak.measurements if m.name == name)


@pytest.fixture
def throttled(device, engine_of):
    """2 ms for 150 inferences, then 6 ms: the change comes after about 0.3 s of 4."""
    import edgeopt.measure.soak as module

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK_S", 0.02)  # windows of 40 ms and more
        return soaked(device, engine_of("throttling"), 4.0)


def test_a_machine_that_throttles_is_told_with_the_time(throttled):
    began = figure(throttled, "time_to_throttle_s")
    assert began.value > 0
    assert began.interval.low < began.interval.high
    assert figure(throttled, "soak_steady_ratio").value > 1.5
    assert figure(throttled, "soak_steady_ratio").interval.low > 1.1
    assert figure(throttled, "soak_first_p50_ms").value < figure(throttled, "soak_steady_p50_ms").value
    assert throttled.interrupted == ""
    assert sum(window.seconds for window in throttled.windows) == pytest.approx(
        throttled.windows[-1].start_s + throttled.windows[-1].seconds, abs=0.01
    )


def test_a_soak_is_drawn_and_written(throttled):
    drawn = page(throttled, "net<b>", html=False)
    root = ET.fromstring(drawn)
    assert root.tag.endswith("svg")
    assert "throttle" in drawn
    whole = page(throttled, "net<b>", html=True)
    assert "net&lt;b&gt;" in whole
    assert whole.count("<tr>") == 1 + len(throttled.windows) + len(throttled.measurements)
    document = json.loads(soak_json(throttled))
    assert len(document["windows"]) == len(throttled.windows)
    assert {m["name"] for m in document["measurements"]} >= {"time_to_throttle_s", "memory_growth_mib"}


def test_a_steady_engine_never_throttles(device, engine_of):
    found = soaked(device, engine_of("steady"), 30.0, clock=Clock(), threshold_pct=200.0)
    assert "never left its first level by more than 200 %" in figure(found, "time_to_throttle_s").reason
    assert len(found.windows) > 10


def test_ctrl_c_yields_the_result_so_far(device, engine_of):
    def stop(progress):
        if progress.done >= 20:
            raise KeyboardInterrupt

    found = soaked(device, engine_of("steady"), 60.0, clock=Clock(), progress=stop)
    assert found.interrupted == "interrupted"
    assert 6 < len(found.windows) < 60
    assert figure(found, "soak_steady_p50_ms").value > 0


def test_an_engine_that_dies_leaves_what_there_was(device, engine_of, monkeypatch):
    monkeypatch.setattr("edgeopt.measure.soak._BLOCK_S", 1e-6)  # blocks of one inference: it dies at the 20th
    found = soaked(device, engine_of("fragile"), 60.0, clock=Clock())
    assert "SIGABRT" in found.interrupted
    assert found.windows


def test_an_engine_that_never_ran_is_an_error(device, engine_of):
    with pytest.raises(DeviceError, match="not supported on this CPU"):
        soaked(device, engine_of("no-load"), 5.0)
    with pytest.raises(DataError, match="no sample to measure with"):
        soak_engine(device, engine_of("null"), sample={}, config=CONFIG, batch=1, seconds=1.0)


def test_too_few_windows_have_no_figures(device, engine_of):
    found = soaked(device, engine_of("steady"), 3.0, clock=Clock())
    assert all("windows are too few" in m.reason for m in found.measurements)
    assert page(found, "net", html=True)


@given(before=st.integers(3, 30), after=st.integers(3, 30), rise=st.floats(1.3, 5.0), seed=st.integers(0, 1000))
@settings(max_examples=100, deadline=None)
def test_the_change_is_found_where_it_is(before, after, rise, seed):
    rng = np.random.default_rng(seed)
    levels = np.concatenate([np.ones(before), np.full(after, rise)]) * rng.uniform(0.99, 1.01, before + after)
    assert throttled_from(levels, 1.0, 10.0) == before


@given(st.lists(st.floats(0.5, 1.05), min_size=6, max_size=60))
@settings(deadline=None)
def test_what_stays_within_the_threshold_is_no_throttling(levels):
    assert throttled_from(np.array(levels), 1.0, 10.0) is None


def test_a_disturbance_that_passes_is_no_throttling():
    levels = np.ones(20)
    levels[8:11] = 3.0
    assert throttled_from(levels, 1.0, 10.0) is None
    levels[15:] = 3.0
    levels[17] = 1.0  # and a window that was spared does not unmake one
    assert throttled_from(levels, 1.0, 10.0) == 15


def test_the_harness_own_time_is_a_figure(device, linear):
    engine = linear("net", np.ones((4, 3)))
    found = harness_overhead(device, engine, sample=SAMPLE, config=CONFIG, batch=1)
    assert (found.name, found.unit, found.n) == ("harness_overhead_us", "us", 1000)
    assert 0 < found.interval.low <= found.value <= found.interval.high
    assert found.conditions["runtime"] == "null"


def test_a_runtime_without_a_clock_is_told_of(device, linear):
    found = runtime_clock(device, linear("net", np.ones((4, 3))), sample=SAMPLE, config=CONFIG, batch=1)
    assert found.value is None
    assert "no clock of its own" in found.reason


def test_a_null_engine_has_the_ports_of_the_real_one(tmp_path, linear):
    real = linear("net", np.ones((4, 3)))
    ports = json.loads(null_engine(tmp_path / "null", real.inputs, real.outputs).path.read_text())
    assert ports == {"inputs": {"x": ["float32", ["batch", 4]]}, "outputs": {"y/1": ["float32", ["batch", 3]]}}
