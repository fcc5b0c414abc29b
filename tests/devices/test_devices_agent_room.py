from __future__ import annotations

import numpy as np
import pytest

from edgeopt.core.errors import DeviceError


@pytest.mark.parametrize("batch", [1, 2, 3, 5, 8])
def test_every_batch_size_gives_every_sample_once_and_no_padding(device, make_engine, five, load, tmp_path, batch):
    with device.open(make_engine("doubling")) as session:
        load(session, "doubling")
        assert session.request("infer", inputs=session.put(five), outputs="o.npz", batch=batch) == {"samples": 5}
        session.get("o.npz", tmp_path / "o.npz")
    assert np.array_equal(np.load(tmp_path / "o.npz")["y"], np.load(five)["x"] * 2)


def test_a_static_engine_takes_its_own_batch_only(device, make_engine, five, load):
    with device.open(make_engine("static_two")) as session:
        load(session, "static_two")
        assert session.request("inputs", inputs=session.put(five), batch=2) == {"batch": 2}
        with pytest.raises(DeviceError, match="compiled for a batch of 2 and cannot take 3") as caught:
            session.request("inputs", inputs=session.put(five), batch=3)
    assert caught.value.kind == "BatchError"


def test_an_engine_that_can_is_resized(device, make_engine, five, load):
    with device.open(make_engine("resizable")) as session:
        load(session, "resizable")
        session.request("inputs", inputs=session.put(five), batch=3)
        assert len(session.request("time", n=1)["latency_ns"]) == 1
        with pytest.raises(DeviceError, match="compiled for a batch of 3; 5: at most 4") as caught:
            session.request("inputs", inputs=session.put(five), batch=5)
    assert caught.value.kind == "BatchError"


def test_an_output_without_a_batch_dimension_is_refused(device, make_engine, five, load):
    with device.open(make_engine("summing")) as session:
        load(session, "summing")
        with pytest.raises(DeviceError, match=r"Output 'y' has shape \[\] for a batch of 5"):
            session.request("infer", inputs=session.put(five), outputs="o.npz", batch=5)


def test_memory_that_an_engine_holds_is_found(device, make_engine, five, load):
    with device.open(make_engine("hoarding")) as session:
        load(session, "hoarding")
        session.request("first", inputs=session.put(five))
        memory = session.request("memory")
    if "unavailable" in memory:
        pytest.skip(f"this kernel does not tell a process's peak: {memory['unavailable']}")
    held = memory["load_peak_mib"] - memory["baseline_mib"]
    assert held == pytest.approx(64, abs=4)  # 64 MiB, and the pages that the interpreter touches meanwhile
    assert memory["run_peak_mib"] - memory["baseline_mib"] >= 60


def test_memory_before_a_load_says_why_it_is_not_there(device, make_engine):
    with device.open(make_engine("doubling")) as session:
        assert session.request("memory") == {"unavailable": "the engine was not loaded yet"}
