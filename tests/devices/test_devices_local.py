from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import psutil
import pytest

import edgeopt
from edgeopt.agent.protocol import PROTOCOL_VERSION
from edgeopt.core.errors import DeviceError
from edgeopt.devices import DEVICES, open_device
from edgeopt.devices.facts import device_info
from edgeopt.devices.local import LocalDevice


def test_an_engine_runs_in_a_process_of_its_own(device, make_engine, five, load, tmp_path):
    with device.open(make_engine("doubling")) as session:
        assert session.pid != os.getpid()
        loaded = load(session, "doubling")
        assert loaded["runtime_version"] == "1.2"
        assert loaded["fallbacks"] == ["op Foo left the accelerator"]
        assert session.request("infer", inputs=session.put(five), outputs="out.npz", batch=5) == {"samples": 5}
        session.get("out.npz", tmp_path / "here.npz")
    assert np.array_equal(np.load(tmp_path / "here.npz")["y"], np.load(five)["x"] * 2)


def test_what_a_native_runtime_prints_never_reaches_the_protocol(device, make_engine, five, load):
    with device.open(make_engine("noisy")) as session:
        load(session, "noisy")
        assert session.request("first", inputs=session.put(five))["first_ms"] > 0
        assert len(session.request("time", n=3)["latency_ns"]) == 3


def test_a_runtime_that_reads_standard_input_gets_nothing(device, make_engine, load):
    with device.open(make_engine("hungry")) as session:
        assert load(session, "hungry")["inputs"]["x"]["shape"] == ["n", 2]


def test_a_native_crash_is_one_clear_error_with_the_last_words(device, make_engine, five, load):
    with device.open(make_engine("crashing")) as session:
        load(session, "crashing")
        with pytest.raises(
            DeviceError, match=r"(?s)crashing engine entry died at 'first'.*SIGABRT.*native.*last words"
        ) as caught:
            session.request("first", inputs=session.put(five))
        assert caught.value.kind == ""
        with pytest.raises(DeviceError, match="SIGABRT"):
            session.request("hello")


def test_a_process_that_exits_is_told_with_its_code(device, make_engine, five, load):
    with device.open(make_engine("exiting")) as session:
        load(session, "exiting")
        with pytest.raises(DeviceError, match="exit code 7"):
            session.request("first", inputs=session.put(five))


def test_a_runtime_exception_is_answered_and_the_process_goes_on(device, make_engine, load):
    with device.open(make_engine("failing")) as session:
        with pytest.raises(DeviceError, match="unsupported op: Frobnicate") as caught:
            load(session, "failing")
        assert caught.value.kind == "RuntimeError"
        assert session.request("hello")["protocol"] == PROTOCOL_VERSION
        assert load(session, "doubling")["load_ms"] >= 0


def test_a_request_that_takes_too_long_ends_the_process(make_engine, five, load):
    device = LocalDevice(runners={"slow": "odd_runners:slow"}, search_path=[Path(__file__).parent], timeout_s=3)
    with device.open(make_engine("slow")) as session:
        load(session, "slow")
        process = psutil.Process(session.pid)
        with pytest.raises(DeviceError, match=r"did not answer 'first' within 3 s.*Give it longer"):
            session.request("first", inputs=session.put(five))
        assert _gone(process)


def test_the_end_of_a_session_ends_the_process_and_removes_its_files(device, make_engine):
    with device.open(make_engine("doubling")) as session:
        session.request("hello")
        process, directory = psutil.Process(session.pid), session.directory
        assert directory.is_dir()
    assert _gone(process)
    assert not directory.exists()
    with pytest.raises(DeviceError, match="is closed"):
        session.request("hello")


def test_a_session_that_nobody_closed_ends_with_its_last_reference(device, make_engine):
    session = device.open(make_engine("doubling"))
    session.request("hello")
    process, directory = psutil.Process(session.pid), session.directory
    del session
    assert _gone(process)
    assert not directory.exists()


def test_an_interrupt_kills_an_agent_in_the_middle_of_an_inference(device, make_engine, five, load):
    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    session = device.open(make_engine("slow"))
    process = psutil.Process(session.pid)
    load(session, "slow")
    signal.setitimer(signal.ITIMER_REAL, 0.5)  # the inference sleeps for a minute
    try:
        with pytest.raises(KeyboardInterrupt), session:
            session.request("first", inputs=session.put(five))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert not process.is_running()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_agent_outlives_its_host(end, tmp_path):
    entry = tmp_path / "entry"
    entry.write_text('{"inputs": {"x": ["float32", ["n"]]}, "outputs": {}}')
    program = textwrap.dedent(f"""
        import signal, time
        from pathlib import Path
        from edgeopt.core.engine import Engine
        from edgeopt.devices.local import LocalDevice
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
        engine = Engine(runtime="null", runtime_version="0", directory=Path({str(tmp_path)!r}), entry="entry",
                        status="built", inputs=(), outputs=())
        with LocalDevice().open(engine) as session:
            session.request("hello")
            print(session.pid, flush=True)
            time.sleep(60)
    """)
    env = {**os.environ, "PYTHONPATH": str(Path(edgeopt.__file__).parent.parent)}
    host = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env)
    agent = psutil.Process(int(host.stdout.readline()))
    host.send_signal(end)
    host.wait(30)
    host.stdout.close()
    assert _gone(agent)


def test_the_agent_has_a_clean_environment_with_the_threads_asked_for(device, make_engine, load, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "must not travel")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("PYTHONSTARTUP", "x.py")
    engine = make_engine("environment")
    with device.open(engine, threads=2) as session:
        load(session, "environment", threads=2, options={"hint": "f32"})
    facts = json.loads((engine.directory / "facts.json").read_text())
    assert facts["env"]["OMP_NUM_THREADS"] == "2"
    assert facts["env"]["PYTHONNOUSERSITE"] == "1"
    assert not {"SECRET_TOKEN", "PYTHONSTARTUP"} & facts["env"].keys()
    assert (facts["threads"], facts["options"]) == (2, {"hint": "f32"})


def test_without_a_thread_count_all_cores_are_left_to_the_runtime(device, make_engine, load, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    engine = make_engine("environment")
    with device.open(engine) as session:
        load(session, "environment")
    assert "OMP_NUM_THREADS" not in json.loads((engine.directory / "facts.json").read_text())["env"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin processes")
def test_agents_stay_on_the_cpus_they_are_pinned_to(make_engine, load):
    cpu = min(os.sched_getaffinity(0))
    device = LocalDevice(
        affinity=[cpu], runners={"environment": "odd_runners:environment"}, search_path=[Path(__file__).parent]
    )
    engine = make_engine("environment")
    with device.open(engine) as session:
        load(session, "environment")
    assert json.loads((engine.directory / "facts.json").read_text())["cpus"] == [cpu]
    assert device.info().conditions["pinned_to"] == str(cpu)


def test_cpus_that_are_not_there_are_refused():
    with pytest.raises(DeviceError, match=r"cannot be pinned.*\[4096\].*Usable here"):
        LocalDevice(affinity=[4096])


def test_an_engine_that_only_the_device_can_build_is_not_opened(device, make_engine):
    engine = make_engine("tensorrt", status="not_built", next_command="python build_engine.py")
    with pytest.raises(DeviceError, match=r"not built.*python build_engine.py"):
        device.open(engine)


def test_a_missing_engine_file_is_one_clear_error(device, make_engine):
    with pytest.raises(DeviceError, match="file is missing"):
        device.open(make_engine("doubling", entry="elsewhere"))


def test_an_agent_that_cannot_start_is_one_clear_error(device, make_engine, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(DeviceError, match="cannot be started"):
        device.open(make_engine("doubling"))


def test_a_device_says_what_is_measured_on(device):
    info = device.info()
    assert device.name == info.name == f"{info.cpu}, {info.cores} core{'s' * (info.cores != 1)} ({info.arch})"
    assert info.memory_mib > 100
    assert info.cores == len(os.sched_getaffinity(0))
    assert info.conditions["python"]


def test_only_features_that_choose_kernels_are_shown():
    machine = {
        "cpu": "Cortex-A76",
        "arch": "aarch64",
        "flags": ["fp", "asimd", "asimddp", "crc32"],
        "cores": 1,
        "memory_mib": 8,
        "system": "Linux",
        "conditions": {},
    }
    info = device_info(machine)
    assert info.isa == ("asimd", "asimddp")
    assert info.name == "Cortex-A76, 1 core (aarch64)"


def test_devices_open_by_name():
    assert list(DEVICES) == ["browser", "local"]
    assert isinstance(open_device("local"), LocalDevice)


def test_an_unknown_device_lists_the_known_ones():
    with pytest.raises(DeviceError, match=r"no device.*'locl'.*Known: local"):
        open_device("locl")


def _gone(process: psutil.Process) -> bool:
    try:
        process.wait(15)
    except psutil.NoSuchProcess:
        return True
    except psutil.TimeoutExpired:
        return False
    return not process.is_running()
