"""The roofline: arithmetic against a hand count, the runtimes' profilers for real, the peaks by the clock."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeopt.bundle.roofline import MachinePeaks
from edgeopt.core.engine import Engine
from edgeopt.core.errors import DeviceError
from edgeopt.core.measurement import Measurement, not_measured
from edgeopt.core.spec import TensorSpec
from edgeopt.devices.local import LocalDevice
from edgeopt.measure import roofline as room
from edgeopt.measure.overhead import null_engine
from edgeopt.measure.peaks import measure_peaks
from edgeopt.measure.roofline import LayerWork, measure_roofline
from edgeopt.recipes.schema import Measure

ONE_THREAD = Measure(threads=1, warmup=1, warmup_within_pct=None)


def peak(name, value, unit="GOPS"):
    return Measurement(name=name, value=value, unit=unit, device="board")


PEAKS = MachinePeaks(
    int8=peak("peak_int8_gops", 400.0),
    float32=peak("peak_float32_gops", 100.0),
    bandwidth=peak("peak_bandwidth_gb_s", 10.0, "GB/s"),
)


def rows_of(layers, works, peaks=PEAKS, batch=1):
    rows = tuple(room._row(layer, work, peaks, batch) for layer, work in zip(layers, works, strict=True))
    return rows, room._whole(rows)


def layer(us, moved, op="Conv"):
    return {"names": ["n"], "op": op, "kernel": op, "us": us, "bytes": moved, "weights": True}


def test_a_layer_with_little_data_is_held_against_the_peak_of_its_precision():
    works = [LayerWork(name="a", macs=10**6, runs_in="int8"), LayerWork(name="b", macs=10**6, runs_in="float32")]
    (a, b), _ = rows_of([layer(10.0, 10_000), layer(40.0, 10_000)], works)
    assert (a.gops, a.intensity, a.roof_gops, a.share_pct) == (200.0, 200.0, 400.0, 50.0)
    assert (b.gops, b.roof_gops, b.share_pct) == (50.0, 100.0, 50.0)


def test_a_layer_with_much_data_is_held_against_the_bandwidth():
    (a,), _ = rows_of([layer(100.0, 10**6)], [LayerWork(name="a", macs=10**6, runs_in="int8")])
    assert (a.intensity, a.roof_gops, a.share_pct) == (2.0, 20.0, 100.0)


def test_a_batch_multiplies_the_work():
    (a,), _ = rows_of([layer(10.0, 10_000)], [LayerWork(name="a", macs=10**6, runs_in="int8")], batch=4)
    assert (a.macs, a.gops) == (4 * 10**6, 800.0)


def test_the_whole_is_one_kernel_after_another():
    works = [
        LayerWork(name="a", macs=10**6, runs_in="int8"),
        LayerWork(name="b", macs=10**6, runs_in="float32"),
        LayerWork(name="relu", macs=0, runs_in=""),
    ]
    _, whole = rows_of([layer(10.0, 10_000), layer(40.0, 10_000), layer(50.0, 10_000, "Relu")], works)
    assert (whole.macs, whole.us, whole.gops) == (2 * 10**6, 100.0, 40.0)
    # At their roofs the two take 5 and 20 microseconds: 4·10⁶ operations in 25.
    assert whole.roof_gops == pytest.approx(160.0)


def test_what_multiplies_nothing_has_no_share():
    (relu,), whole = rows_of([layer(5.0, 100, "Relu")], [LayerWork(name="relu", macs=0, runs_in="")])
    assert (relu.share_pct, whole.roof_gops) == (None, None)


def test_without_a_peak_there_is_no_roof():
    peaks = PEAKS.model_copy(update={"int8": not_measured("peak_int8_gops", "GOPS", "no such runtime there")})
    (a,), whole = rows_of([layer(10.0, 100)], [LayerWork(name="a", macs=9, runs_in="int8")], peaks)
    assert (a.roof_gops, a.share_pct, whole.roof_gops) == (None, None, None)


@pytest.fixture
def fixed_peaks(monkeypatch):
    monkeypatch.setattr(room, "measure_peaks", lambda *_, **__: PEAKS)


def linear(folder, batch="n"):
    """y = x @ weights, as an ONNX file."""
    weight = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 32])],
        [numpy_helper.from_array(weight, "w")],
    )
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), folder / "m.onnx")
    return Engine(
        runtime="onnxruntime",
        runtime_version="1",
        directory=folder,
        entry="m.onnx",
        status="built",
        inputs=(TensorSpec(name="x", dtype="float32", shape=(batch, 64)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=(batch, 32)),),
    )


def test_a_real_engines_layers_are_timed_in_a_process_of_their_own(tmp_path, fixed_peaks):
    pytest.importorskip("onnxruntime", reason="pip install 'edgeopt[onnxruntime]'")
    seen = []

    def work_of(layers):
        seen.extend(layers)
        return [LayerWork(name="product", macs=64 * 32, runs_in="float32", weight_bytes=4 * 64 * 32) for _ in layers]

    sample = {"x": np.ones((2, 64), np.float32)}
    found = measure_roofline(
        LocalDevice(), linear(tmp_path), sample=sample, config=ONE_THREAD, batch=2, work_of=work_of, runs=5
    )
    assert [one["op"] for one in seen] == ["MatMul"]
    # Two samples in, the weight, two samples out, in float32.
    assert found.rows[0].moved_bytes == 4 * (2 * 64 + 64 * 32 + 2 * 32)
    assert found.rows[0].us > 0
    assert found.rows[0].macs == 2 * 64 * 32
    assert (found.conditions["threads"], found.conditions["batch"], found.conditions["runs"]) == (1, 2, 5)


def test_openvinos_layers_are_timed_by_its_own_counters(tmp_path, fixed_peaks):
    ov = pytest.importorskip("openvino", reason="pip install 'edgeopt[openvino]'")
    engine = linear(tmp_path / "onnx", batch=2)
    model = ov.Core().read_model(str(engine.path))
    (tmp_path / "ir").mkdir()
    ov.save_model(model, tmp_path / "ir" / "model.xml", compress_to_fp16=False)
    engine = dataclasses.replace(
        engine, runtime="openvino", directory=tmp_path / "ir", entry="model.xml", options={"device": "CPU"}
    )
    seen = []

    def work_of(layers):
        seen.extend(layers)
        return [LayerWork(name=one["op"], macs=0, runs_in="") for one in layers]

    sample = {"x": np.ones((2, 64), np.float32)}
    measure_roofline(LocalDevice(), engine, sample=sample, config=ONE_THREAD, batch=2, work_of=work_of, runs=5)
    product = next(one for one in seen if one["op"] in ("FullyConnected", "MatMul"))
    assert product["kernel"].endswith("f32")
    assert product["us"] > 0
    assert product["bytes"] >= 4 * (2 * 64 + 64 * 32 + 2 * 32)


def test_a_runtime_without_a_profiler_says_so(tmp_path, fixed_peaks):
    real = linear(tmp_path / "real")
    engine = null_engine(tmp_path / "null", real.inputs, real.outputs)
    sample = {"x": np.ones((1, 64), np.float32)}
    with pytest.raises(DeviceError, match=r"layers cannot be timed one by one.*has no profiler"):
        measure_roofline(LocalDevice(), engine, sample=sample, config=ONE_THREAD, batch=1, work_of=list)


def test_a_device_whose_times_are_an_emulators_is_refused(tmp_path, monkeypatch):
    device = LocalDevice()
    monkeypatch.setattr(type(device), "numerics_only", "the CPU is emulated")
    sample = {"x": np.ones((1, 64), np.float32)}
    with pytest.raises(DeviceError, match="not measured on this device"):
        measure_roofline(device, linear(tmp_path), sample=sample, config=ONE_THREAD, batch=1, work_of=list)


@pytest.mark.long
def test_peaks_are_measured_and_say_how():
    pytest.importorskip("onnxruntime", reason="pip install 'edgeopt[onnxruntime]'")
    found = measure_peaks(LocalDevice(), config=ONE_THREAD)
    for figure in (found.int8, found.float32, found.bandwidth):
        assert figure.value is not None, figure.reason
        assert figure.value > 0.1
        assert figure.conditions["threads"] == 1
        assert figure.conditions["how"] == "the fastest of 20"


def test_peaks_of_a_device_without_the_runtime_say_why(monkeypatch):
    class Bare:
        name = "bare board"

        def open(self, engine, *, threads=None):
            raise DeviceError("onnxruntime cannot be imported.")

    found = measure_peaks(Bare(), config=ONE_THREAD)
    assert found.int8.value is None
    assert "onnxruntime cannot be imported" in found.int8.reason
