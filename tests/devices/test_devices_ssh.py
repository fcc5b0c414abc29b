"""A real sshd in a network namespace, as a second host."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from second_host import why_not

from edgeopt.core.engine import Engine
from edgeopt.core.errors import DeviceError
from edgeopt.core.spec import TensorSpec
from edgeopt.devices.local import LocalDevice
from edgeopt.devices.ssh.device import SshDevice

REASON = why_not()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)


@pytest.fixture
def device(host):
    device = SshDevice(host.url(), timeout_s=60, connect_timeout_s=3, keepalive_s=0.5, patience_s=20)
    yield device
    device.close()
    assert host.left() == []


@pytest.fixture
def engine(tmp_path):
    folder = tmp_path / "engine"
    folder.mkdir()
    graph = helper.make_graph(
        [helper.make_node("Softmax", ["x"], ["y"])],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), folder / "model.onnx"
    )
    return Engine(
        runtime="onnxruntime",
        runtime_version="1",
        directory=folder,
        entry="model.onnx",
        status="built",
        inputs=(TensorSpec(name="x", dtype="float32", shape=("n", 5)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("n", 5)),),
    )


def load(session, engine):
    return session.request("load", runtime=engine.runtime, entry=session.entry)


def outputs_on(device, engine, folder):
    folder.mkdir()
    x = np.random.default_rng(0).normal(size=(64, 5)).astype(np.float32)
    with (folder / "x.npz").open("wb") as file:
        np.savez(file, x=x)
    with device.open(engine) as session:
        load(session, engine)
        session.request("infer", inputs=session.put(folder / "x.npz"), outputs="o.npz", batch=8)
        session.get("o.npz", folder / "o.npz")
    return np.load(folder / "o.npz")["y"]


def test_outputs_are_those_of_this_machine_bit_by_bit(device, engine, tmp_path):
    there = outputs_on(device, engine, tmp_path / "there")
    here = outputs_on(LocalDevice(), engine, tmp_path / "here")
    assert here.tobytes() == there.tobytes()
    assert device.name == f"{device.address.host}: {LocalDevice().name}"


def test_a_line_cut_for_longer_than_the_patience_of_keepalive_is_taken_up_again(device, host, engine, tmp_path):
    x = tmp_path / "x.npz"
    np.savez(x, x=np.ones((4, 5), np.float32))
    with device.open(engine) as session:
        load(session, engine)
        session.request("first", inputs=session.put(x))
        session.request("warm", n=5)
        before = session.request("time", n=20)["latency_ns"]
        host.cut()
        threading.Timer(4, host.mend).start()
        started = time.monotonic()
        after = session.request("time", n=20)["latency_ns"]
        assert time.monotonic() - started > 2  # the line was down in between
        assert len(before) == len(after) == 20
        session.request("infer", inputs=session.put(x), outputs="o.npz", batch=4)
        session.get("o.npz", tmp_path / "o.npz")
    assert device.resumed >= 1
    assert np.load(tmp_path / "o.npz")["y"].tobytes() == np.full((4, 5), 0.2, np.float32).tobytes()


def test_the_agent_that_a_lost_line_left_behind_is_ended_and_no_engine_is_sent_again(device, host, engine, tmp_path):
    sent = []
    send = device.depot.send
    device.depot.send = lambda files, directory, stage: (sent.append(stage), send(files, directory, stage))
    with device.open(engine) as session:
        load(session, engine)
        old = session.request("hello")["pid"]
        connection = device.depot.link._connection
        connection._loop.call_soon_threadsafe(connection.abort)
        assert session.request("hello")["pid"] != old
        assert gone(old)
    assert sorted(sent) == ["send model.onnx", "send the agent"]


def test_a_line_that_stays_down_is_one_clear_error_and_nothing_is_left_for_long(host, engine):
    device = SshDevice(host.url(), timeout_s=60, connect_timeout_s=1, keepalive_s=0.5, patience_s=3)
    with device.open(engine) as session:
        load(session, engine)
        host.cut()
        try:
            with pytest.raises(DeviceError, match=r"was lost and did not come back within 3 s"):
                session.request("hello")
            device.close()
        finally:
            host.mend()
    assert len(host.left()) == 1  # nobody could reach it; the device tidies up by itself, or the next run does
    shutil.rmtree(host.tmp / host.left()[0])


def test_engines_are_sent_once_per_content(device, engine):
    sent = []
    send = device.depot.send
    device.depot.send = lambda files, directory, stage: (sent.append(stage), send(files, directory, stage))
    for _ in range(2):
        with device.open(engine) as session:
            load(session, engine)
    assert sorted(sent) == ["send model.onnx", "send the agent"]


def test_an_agent_that_dies_is_told_of_with_its_last_words(device, engine):
    with device.open(engine) as session:
        load(session, engine)
        pid = session.request("hello")["pid"]
        subprocess.run(["kill", "-SEGV", str(pid)], check=True)
        with pytest.raises(
            DeviceError, match=r"onnxruntime engine model.onnx on .* died at 'hello': killed by SIGSEGV"
        ):
            session.request("hello")


def test_an_error_of_the_agent_leaves_it_alive(device, engine):
    with device.open(engine) as session:
        with pytest.raises(DeviceError, match="No engine is loaded yet") as caught:
            session.request("warm", n=1)
        assert caught.value.kind == "OrderError"
        load(session, engine)


def test_the_environment_is_clean_and_threads_are_set(device, engine):
    with device.open(engine, threads=2) as session:
        pid = session.request("hello")["pid"]
        pairs = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        variables = dict(pair.decode().split("=", 1) for pair in pairs if pair)
    assert variables["HOME"] == variables["TMPDIR"] == session.directory
    assert variables["OMP_NUM_THREADS"] == "2"
    assert "SSH_CONNECTION" not in variables


def test_what_a_dead_run_left_is_removed_a_day_later_and_not_before(host, engine):
    old, young, foreign = host.tmp / "edgeopt-old", host.tmp / "edgeopt-young", host.tmp / "others"
    for path in (old, young, foreign):
        path.mkdir()
        (path / "lease").write_text("x")
    for path in (old / "lease", old, foreign):
        os.utime(path, (time.time() - 90_000,) * 2)
    device = SshDevice(host.url())
    try:
        device.depot.directory()
        assert {"edgeopt-young", "others"} < set(host.left())
        assert "edgeopt-old" not in host.left()
    finally:
        device.close()
        shutil.rmtree(young)
        shutil.rmtree(foreign)


def test_the_watchman_removes_everything_when_the_host_is_killed(host, engine):
    device = SshDevice(host.url(), patience_s=-58)  # a grace of two seconds
    with device.open(engine) as session:
        load(session, engine)
        pid = session.request("hello")["pid"]
        device.depot.link._drop()  # as if the host were gone
        deadline = time.monotonic() + 30
        while host.left() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert host.left() == []
        assert gone(pid)
        device.depot.link.end()


class TestWhoTheDeviceIs:
    def test_an_unknown_key_is_refused_with_its_fingerprint(self, host):
        host.known_hosts.write_text("")
        with pytest.raises(DeviceError, match=r"is not known\. Received: ssh-ed25519 SHA256:.*--accept-new-host-key"):
            SshDevice(host.url()).info()
        assert host.known_hosts.read_text() == ""

    def test_an_unknown_key_is_taken_and_added_where_asked_for(self, host):
        host.known_hosts.write_text("# mine")
        device = SshDevice(host.url(), accept_new_host_key=True)
        device.info()
        device.close()
        key = (host.folder / "etc" / "host.pub").read_text().split()[1]
        assert host.known_hosts.read_text().splitlines()[0] == "# mine"
        assert key in host.known_hosts.read_text().splitlines()[1]
        again = SshDevice(host.url())
        again.info()
        again.close()

    @pytest.mark.parametrize("accept", [False, True])
    def test_a_changed_key_is_refused_always(self, host, tmp_path, accept):
        host.key(tmp_path / "other")
        other = " ".join((tmp_path / "other.pub").read_text().split()[:2])
        host.known_hosts.write_text(f"[{host.address}]:{host.port} {other}\n")
        with pytest.raises(DeviceError, match=r"has CHANGED.*ssh-keygen -R"):
            SshDevice(host.url(), accept_new_host_key=accept).info()
        assert host.known_hosts.read_text() == f"[{host.address}]:{host.port} {other}\n"

    def test_a_key_that_is_not_let_in(self, host, monkeypatch, tmp_path):
        (tmp_path / ".ssh").mkdir()
        (tmp_path / ".ssh" / "known_hosts").write_text(host.known_hosts.read_text())
        host.key(tmp_path / ".ssh" / "id_ed25519")
        monkeypatch.setenv("HOME", str(tmp_path))
        with pytest.raises(DeviceError, match=r"does not let this user in.*ssh-copy-id"):
            SshDevice(host.url()).info()

    def test_aliases_users_ports_and_keys_come_from_the_ssh_configuration(self, host, tmp_path, monkeypatch):
        (tmp_path / ".ssh").mkdir()
        (tmp_path / "known").write_text(host.known_hosts.read_text())
        (tmp_path / ".ssh" / "config").write_text(
            f"Host Board\n  HostName {host.address}\n  Port {host.port}\n  User root\n"
            f"  IdentityFile {host.client_home}/.ssh/id_ed25519\n  UserKnownHostsFile {tmp_path}/known\n"
        )
        monkeypatch.setenv("HOME", str(tmp_path))
        device = SshDevice(f"ssh://Board?python={sys.executable}")
        try:
            assert device.name.startswith("Board: ")
        finally:
            device.close()

    def test_a_jump_host_of_the_ssh_configuration_is_gone_through(self, host, tmp_path, monkeypatch):
        (tmp_path / ".ssh").mkdir()
        (tmp_path / ".ssh" / "known_hosts").write_text(host.known_hosts.read_text())
        (tmp_path / ".ssh" / "config").write_text(
            f"Host *\n  User root\n  Port {host.port}\n  IdentityFile {host.client_home}/.ssh/id_ed25519\n"
            f"Host jump\n  HostName {host.address}\nHost inner\n  HostName {host.address}\n  ProxyJump jump\n"
        )
        monkeypatch.setenv("HOME", str(tmp_path))
        device = SshDevice(f"ssh://inner?python={sys.executable}")
        try:
            assert device.name.startswith("inner: ")
            there = device.depot.link.run("echo $SSH_CONNECTION")[1].split()
            assert there[0] == there[2] == host.address.encode()  # it came from the jump host
        finally:
            device.close()

    def test_the_configuration_cannot_turn_the_check_off(self, host, tmp_path, monkeypatch):
        (tmp_path / ".ssh").mkdir()
        (tmp_path / ".ssh" / "config").write_text(
            f"Host *\n  StrictHostKeyChecking no\n  UserKnownHostsFile none\n"
            f"  IdentityFile {host.client_home}/.ssh/id_ed25519\n"
        )
        monkeypatch.setenv("HOME", str(tmp_path))
        with pytest.raises(DeviceError, match="is not known"):
            SshDevice(host.url()).info()


def test_uploads_are_told_of_and_a_listener_that_stops_the_run_stops_no_connection(host, engine):
    (engine.directory / "weights.bin").write_bytes(os.urandom(3 << 20))
    told = []

    def listen(progress):
        told.append(progress)
        raise KeyboardInterrupt

    device = SshDevice(host.url(), progress=listen)
    with device.open(engine) as session:
        load(session, engine)
    device.close()
    assert told[-1].done == told[-1].total > 3 << 20
    assert told[-1].stage == f"send model.onnx to {host.address}"
    assert host.left() == []


def test_content_that_changes_on_the_way_is_found(device, tmp_path, monkeypatch):
    from edgeopt.devices.ssh import depot

    file = tmp_path / "x.bin"
    file.write_bytes(b"what is sent")
    monkeypatch.setattr(depot, "hash_file", lambda path: "0" * 64)
    with pytest.raises(DeviceError, match=r"is not what was sent \(sha256\)"):
        device.depot.send({"x.bin": file}, device.depot.directory(), "send x")


def test_without_the_library_it_says_how_to_get_it(monkeypatch):
    from edgeopt.devices.ssh import link

    monkeypatch.setattr(link.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DeviceError, match=r"pip install 'edgeopt\[ssh\]'"):
        SshDevice("ssh://board").info()


class TestBadDevices:
    def refused(self, host, match, **options):
        device = SshDevice(host.url(**options), connect_timeout_s=3)
        try:
            with pytest.raises(DeviceError, match=match):
                device.info()
        finally:
            device.close()

    def test_no_python(self, host):
        self.refused(host, r"has no Python.*/nowhere/python.*apt-get install python3", python="/nowhere/python")

    def test_a_python_that_is_too_old(self, host, tmp_path):
        python = script(tmp_path / "python", "echo 306")
        self.refused(host, r"is too old: the agent needs 3\.8.*3\.6", python=python)

    def test_no_numpy(self, host, tmp_path):
        bare = script(tmp_path / "python", f'exec {sys.base_prefix}/bin/python3 -S "$@"')
        self.refused(host, r"has no NumPy.*-m pip install numpy", python=bare)

    def test_no_runtime(self, host, engine, tmp_path):
        device = SshDevice(host.url())
        try:
            device.depot.facts()["runtimes"]["onnxruntime"] = None
            with pytest.raises(DeviceError, match=r"has no onnxruntime for .*-m pip install 'onnxruntime'"):
                device.open(engine)
        finally:
            device.close()

    def test_another_version_of_the_runtime(self, host):
        device = SshDevice(host.url())
        try:
            assert device.demand("onnxruntime", ">=1.20")
            with pytest.raises(DeviceError, match=r"another version of onnxruntime.*wanted <1\.0.*'onnxruntime<1\.0'"):
                device.demand("onnxruntime", "<1.0")
        finally:
            device.close()

    def test_a_full_disk(self, host, engine):
        (engine.directory / "weights.bin").write_bytes(os.urandom(1 << 20))
        device = SshDevice(host.url(tmpdir=str(host.small)))
        with pytest.raises(DeviceError, match=r"The disk of .* is full: send .*tmpdir="):
            device.open(engine)
        device.close()
        assert list(host.small.iterdir()) == []

    def test_a_directory_that_may_not_be_written(self, host):
        self.refused_directory(host, "/proc")

    def test_a_directory_that_is_not_there(self, host):
        self.refused_directory(host, "/nowhere")

    def refused_directory(self, host, tmpdir):
        device = SshDevice(host.url(tmpdir=tmpdir))
        with pytest.raises(DeviceError, match=r"No directory can be made on .*tmpdir=/path"):
            device.depot.directory()
        device.close()

    def test_nobody_listens(self, host):
        with pytest.raises(DeviceError, match="refuses the connection"):
            SshDevice(f"ssh://root@{host.address}:9").info()

    def test_nobody_is_there(self, host):
        with pytest.raises(DeviceError, match=r"does not answer|cannot be reached"):
            SshDevice(f"ssh://root@{host.address[:-1]}77:2222", connect_timeout_s=1).info()

    def test_a_name_that_does_not_resolve(self, host):
        with pytest.raises(DeviceError, match="cannot be resolved"):
            SshDevice("ssh://root@no-such-host.invalid").info()


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def gone(pid):
    """A killed process stays a moment."""
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.1)
    return False
