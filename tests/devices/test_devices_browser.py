"""onnxruntime-web in a real headless Chromium: outputs, timing, and every way in which a browser can be lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import psutil
import pytest
from browser_here import convolution, demand_browser, engine_of
from onnx import TensorProto, helper

from edgeopt.agent.protocol import PROTOCOL_VERSION
from edgeopt.core.errors import DeviceError
from edgeopt.devices import open_device, opened
from edgeopt.devices.browser.device import BrowserDevice
from edgeopt.measure.overhead import null_engine

pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def browser():
    demand_browser()
    with opened("browser") as device:
        yield device


@pytest.fixture
def samples(tmp_path):
    """Five samples in a file, and the array in it."""
    array = np.random.default_rng(1).uniform(-3, 3, (5, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "samples.npz", x=array)
    return tmp_path / "samples.npz", array


def load(session, *, options=None, threads=1, runtime="onnxruntime"):
    return session.request("load", runtime=runtime, entry=session.entry, options=options or {}, threads=threads)


def outputs_of(session, file, folder, batch):
    assert session.request("infer", inputs=session.put(file), outputs="out.npz", batch=batch) == {"samples": 5}
    session.get("out.npz", folder / "here.npz")
    with np.load(folder / "here.npz") as found:
        return {name: found[name] for name in found.files}


def on_host(path, array):
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]).run(None, {"x": array})[0]


@pytest.mark.parametrize(("batch", "size"), [("n", 2), (1, 1)])
@pytest.mark.parametrize("int8", [False, True])
def test_the_browser_computes_what_the_host_computes(browser, samples, tmp_path, int8, batch, size):
    file, array = samples
    path = convolution(tmp_path / "engine" / "model.onnx", int8=int8, batch=batch)
    expected = np.concatenate([on_host(path, array[i : i + 1]) for i in range(5)])
    with browser.open(engine_of(path)) as session:
        loaded = load(session)
        assert loaded["inputs"] == {"x": {"dtype": "float32", "shape": [batch, 3, 16, 16]}}
        assert loaded["fallbacks"] == []
        found = outputs_of(session, file, tmp_path, size)
    assert list(found) == ["y"]
    # Another order of float sums; in int8 another rounding of a value between two points, one step of 6/255.
    np.testing.assert_allclose(found["y"], expected, rtol=0, atol=6 / 255 * 1.01 if int8 else 1e-5)


def test_an_ort_file_runs_and_threads_change_nothing(browser, samples, tmp_path):
    file, array = samples
    path = convolution(tmp_path / "model.onnx", int8=True)
    options = ort.SessionOptions()
    (tmp_path / "engine").mkdir()
    options.optimized_model_filepath = str(tmp_path / "engine" / "model.ort")
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    engine = engine_of(tmp_path / "engine" / "model.ort", runtime="ort-mobile")
    for threads in (1, 2):
        with browser.open(engine) as session:
            assert load(session, runtime="ort-mobile", threads=threads)["threads"] == threads
            found = outputs_of(session, file, tmp_path, 5)
        np.testing.assert_allclose(found["y"], on_host(path, array), rtol=0, atol=6 / 255 * 1.01)


def test_weights_in_a_file_of_their_own_are_found_whatever_it_is_called(browser, samples, tmp_path):
    file, array = samples
    path = convolution(tmp_path / "model.onnx", int8=False)
    expected = on_host(path, array)
    (tmp_path / "engine").mkdir()
    onnx.save(
        onnx.load(path),
        tmp_path / "engine" / "model.onnx",
        save_as_external_data=True,
        location="my weights, 100 %.bin",
        size_threshold=0,
    )
    with browser.open(engine_of(tmp_path / "engine" / "model.onnx")) as session:
        load(session)
        np.testing.assert_allclose(outputs_of(session, file, tmp_path, 5)["y"], expected, rtol=0, atol=1e-5)


def test_every_request_is_answered_as_the_protocol_says(browser, samples, tmp_path):
    file, _ = samples
    path = convolution(tmp_path / "engine" / "model.onnx", int8=False)
    options = {"config": {"session.intra_op.allow_spinning": "0"}, "disabled_optimizers": ["Foo"], "providers": ["X"]}
    browser.picture = tmp_path / "page.png"
    try:
        with browser.open(engine_of(path)) as session:
            hello = session.request("hello")
            assert hello["protocol"] == PROTOCOL_VERSION
            assert (hello["machine"]["arch"], hello["machine"]["flags"]) == (
                "wasm32",
                ["simd128", "relaxed_simd", "threads"],
            )
            loaded = load(session, options=options)
            assert len(loaded["fallbacks"]) == 2
            assert loaded["import_ms"] > 0 < loaded["load_ms"]
            first = session.request("first", inputs=session.put(file))
            assert first["cold_start_ms"] == pytest.approx(first["load_ms"] + first["first_ms"])
            with pytest.raises(DeviceError, match="first inference has been run already") as caught:
                session.request("first", inputs=session.put(file))
            assert caught.value.kind == "OrderError"
            assert session.request("inputs", inputs=session.put(file), batch=2) == {"batch": 2}
            assert session.request("warm", n=3)["converged"] is None
            assert session.request("warm", n=3, within_pct=90.0, most=200, limit_s=5.0)["n"] >= 30
            timed = session.request("time", n=20, per=2)
            assert len(timed["latency_ns"]) == 20
            assert min(timed["latency_ns"]) > 0
            assert timed["rss_mib"] > 10
            arrivals = session.request("serve", schedule_ns=[0, 2_000_000, 9_000_000])
            assert arrivals["seconds"] >= 0.009
            assert all(a >= s for a, s in zip(arrivals["latency_ns"], arrivals["service_ns"], strict=True))
            memory = session.request("memory")
            assert memory["baseline_mib"] > 50
            assert "VmHWM of the page's process" in memory["how"]
            state = session.request("state")
            assert state["cpu_own_s"] > 0
            assert "unavailable" in session.request("energy", seconds=1.0)
            assert "unavailable" in session.request("layers", n=1, warmup=1)
    finally:
        browser.picture = None
    assert (tmp_path / "page.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_name_of_the_browser_is_on_the_figures(browser):
    assert browser.name.startswith(("Chromium ", "Google Chrome ")) and " headless on " in browser.name  # noqa: PT018
    info = browser.info()
    assert (info.name, info.arch) == (browser.name, "wasm32")
    assert "onnxruntime-web" in info.system
    # Isolated pages have a clock of 5 µs; Chromium's is 100 µs without.
    assert 1 <= int(info.conditions["clock_resolution_us"]) <= 20
    assert browser.host().features >= {"simd128", "threads"}


def test_the_harness_can_be_timed_around_nothing(browser, samples, tmp_path):
    from edgeopt.core.spec import TensorSpec

    file, _ = samples
    spec = TensorSpec(name="x", dtype="float32", shape=("n", 3, 16, 16))
    engine = null_engine(tmp_path / "null", (spec,), (TensorSpec(name="y", dtype="int64", shape=("n", 4)),))
    with browser.open(engine) as session:
        load(session, runtime="null")
        session.request("first", inputs=session.put(file))
        assert len(session.request("time", n=5)["latency_ns"]) == 5
        found = outputs_of(session, file, tmp_path, 5)
    assert (found["y"].dtype, found["y"].shape) == (np.int64, (5, 4))


WRONG = [
    ({"z": np.zeros((2, 3, 16, 16), np.float32)}, 1, "InputError", r"inputs are \['x'\]; received \['z'\]"),
    ({"x": np.zeros((2, 3, 16, 16))}, 1, "InputError", r"Input 'x' is float32; received float64"),
    ({"x": np.zeros((0, 3, 16, 16), np.float32)}, 1, "InputError", r"at least one; received"),
    ({"x": np.zeros((2, 3, 16, 16), np.float32)}, 2, "BatchError", r"compiled for a batch of 1 and cannot take 2"),
    ({"x": np.zeros((1, 3, 16, 16), np.float32)}, 2, "InputError", r"holds 1 samples, fewer than the batch of 2"),
    ({"x": np.zeros((1, 3, 8, 8), np.float32)}, 1, "Error", r"failed at 'warm': .*[Gg]ot invalid dimensions"),
]


def test_inputs_that_do_not_fit_are_an_error_and_the_session_goes_on(browser, samples, tmp_path):
    file, _ = samples
    with browser.open(engine_of(convolution(tmp_path / "engine" / "model.onnx", int8=False, batch=1))) as session:
        with pytest.raises(DeviceError, match="No engine is loaded yet") as caught:
            session.request("inputs", inputs=session.put(file), batch=1)
        assert caught.value.kind == "OrderError"
        load(session)
        with pytest.raises(DeviceError, match="No inputs were chosen yet") as caught:
            session.request("time", n=1)
        assert caught.value.kind == "OrderError"
        for arrays, batch, kind, message in WRONG:
            np.savez(tmp_path / "wrong.npz", **arrays)
            with pytest.raises(DeviceError, match=message) as caught:  # noqa: PT012 - the page sees shapes as it runs
                session.request("inputs", inputs=session.put(tmp_path / "wrong.npz"), batch=batch)
                session.request("warm", n=1)
            assert caught.value.kind == kind
            assert session.request("inputs", inputs=session.put(file), batch=1) == {"batch": 1}
            assert session.request("warm", n=1)["n"] == 1


def unknown_operator(path):
    model = onnx.load(path)
    model.graph.node[-1].op_type = "Nonesuch"
    onnx.save(model, path)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:200]), r"failed at 'load': .*[Pp]rotobuf parsing failed"),
        (unknown_operator, r"failed at 'load': .*Nonesuch"),
        (lambda path: path.unlink(), r"engine's file is missing"),
    ],
)
def test_an_engine_that_cannot_be_opened_is_one_clear_error(browser, tmp_path, break_it, message):
    path = convolution(tmp_path / "engine" / "model.onnx", int8=False)
    break_it(path)
    with pytest.raises(DeviceError, match=message), browser.open(engine_of(path)) as session:
        load(session)


def test_an_output_without_a_batch_is_refused(browser, tmp_path):
    ports = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", ["n", 2]), ("y", []))]
    graph = helper.make_graph([helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)], "sum", ports[:1], ports[1:])
    path = tmp_path / "engine" / "model.onnx"
    path.parent.mkdir()
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    np.savez(tmp_path / "two.npz", x=np.ones((2, 2), np.float32))
    with browser.open(engine_of(path)) as session:
        load(session)
        with pytest.raises(DeviceError, match="first dimension is not the batch") as caught:
            session.request("infer", inputs=session.put(tmp_path / "two.npz"), outputs="o.npz", batch=2)
    assert caught.value.kind == "InputError"


@pytest.mark.parametrize("which", ["page", "browser"])
def test_a_browser_that_dies_in_the_middle_is_one_clear_error(browser, samples, tmp_path, which):
    file, _ = samples
    path = convolution(tmp_path / "engine" / "model.onnx", int8=False)
    with browser.open(engine_of(path)) as session:
        load(session)
        session.request("inputs", inputs=session.put(file), batch=1)
        pid = session._processes._pid if which == "browser" else session._processes._renderer.pid
        threading.Timer(0.5, psutil.Process(pid).kill).start()
        with pytest.raises(DeviceError, match=r"The browser was lost at 'time'\.") as caught:
            session.request("time", n=10_000_000)
        assert caught.value.kind == ""
        with pytest.raises(DeviceError, match="The browser is closed"):
            session.request("time", n=1)
    with browser.open(engine_of(path)) as session:  # the next one starts as if nothing had been
        assert load(session)["load_ms"] > 0


def test_a_request_that_takes_too_long_ends_the_browser(samples, tmp_path):
    demand_browser()
    file, _ = samples
    device = BrowserDevice(timeout_s=5)
    try:
        with device.open(engine_of(convolution(tmp_path / "engine" / "model.onnx", int8=False))) as session:
            load(session)
            session.request("inputs", inputs=session.put(file), batch=1)
            pid = session._processes._pid
            with pytest.raises(DeviceError, match=r"did not answer 'time' within 5 s; it was ended"):
                session.request("time", n=100_000_000)
            assert ended([pid])
    finally:
        device.close()


def test_an_engine_of_another_runtime_is_refused_before_a_browser_starts(browser, tmp_path):
    path = convolution(tmp_path / "engine" / "model.onnx", int8=False)
    with pytest.raises(DeviceError, match=r"does not run engines of this runtime\. Received: 'openvino'.*browser-wasm"):
        browser.open(engine_of(path, runtime="openvino"))
    with pytest.raises(DeviceError, match=r"another version than the target asks for.*wanted <1\.0"):
        browser.demand("onnxruntime", "<1.0")


SCRIPT = """
import sys
from edgeopt.devices import opened
from browser_here import convolution, engine_of
from pathlib import Path
import numpy as np
folder = Path(sys.argv[1])
np.savez(folder / "x.npz", x=np.zeros((1, 3, 16, 16), np.float32))
with opened("browser") as device, device.open(engine_of(convolution(folder / "engine" / "model.onnx", int8=False))) as one:
    one.request("load", runtime="onnxruntime", entry=one.entry, options={}, threads=1)
    one.request("inputs", inputs=one.put(folder / "x.npz"), batch=1)
    print("timing", flush=True)
    one.request("time", n=100_000_000)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_neither_ctrl_c_nor_a_kill_leaves_a_browser_or_its_profile(tmp_path, how):
    demand_browser()
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": path},
        start_new_session=True,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "timing\n"
    pids = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
    assert len(pids) > 2
    if how == signal.SIGINT:
        os.killpg(process.pid, how)  # as a terminal does
    else:
        process.kill()
    process.wait(30)
    assert ended(pids)
    kinds = ("playwright", "org.chromium", "chromium", *(() if how == signal.SIGKILL else ("edgeopt",)))
    assert gone(lambda: [p.name for p in temporary.iterdir() if p.name.lstrip(".").startswith(kinds)])


def ended(pids, within_s=15.0):
    return gone(lambda: [pid for pid in pids if psutil.pid_exists(pid) and alive(pid)], within_s)


def alive(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def gone(left, within_s=15.0):
    end = time.monotonic() + within_s
    while left() and time.monotonic() < end:
        time.sleep(0.1)
    return not left()


def test_a_chromium_that_does_not_start_is_told_with_its_last_words(tmp_path, monkeypatch):
    demand_browser()
    broken = tmp_path / "chromium"
    broken.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo Chromium 1.2.3 && exit 0\necho "FATAL: no such library" >&2\nexit 1\n'
    )
    broken.chmod(0o755)
    monkeypatch.setenv("EDGEOPT_CHROMIUM", str(broken))
    with opened("browser") as device, pytest.raises(DeviceError, match=r"Chromium does not start.*no such library"):
        device.info()


def test_the_device_is_known_by_its_name():
    demand_browser()
    device = open_device("browser")
    try:
        assert device.numerics_only == ""
        assert device.demand("onnxruntime", ">=1.23,<2").startswith("1.")
    finally:
        device.close()
