"""The commands, on a second host."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from second_host import SecondHost, why_not

import edgeopt
from edgeopt.cli.edge import run
from edgeopt.cli.main import cli
from edgeopt.devices.local import LocalDevice

REASON = why_not()
pytestmark = [pytest.mark.skipif(bool(REASON), reason=REASON), pytest.mark.long]


def on_device(capsys, *words):
    code = run(cli, list(map(str, words)))
    out, said = capsys.readouterr()
    return code, out, said


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 3))
    program = torch.export.export(net.eval(), (torch.zeros(2, 1, 8, 8),), dynamic_shapes=({0: torch.export.Dim("n")},))
    torch.export.save(program, folder / "net.pt2")
    return folder / "net.pt2"


@pytest.fixture(scope="module")
def bundle(second, model, tmp_path_factory):
    """Compiled here, for the machine at hand."""
    return edgeopt.compile(
        model, target="local", recipe="fp32", output=tmp_path_factory.mktemp("out") / "bundle"
    ).directory


def test_compile_measures_on_the_device(host, model, tmp_path, capsys):
    words = ("compile", model, "--target", "local", "-r", "fp32", "-o", tmp_path / "bundle", "--device", host.url())
    code, out, said = on_device(capsys, *words, "--json")
    assert code == 0, said
    report = json.loads(out)
    name = f"{host.address}: {LocalDevice().name}"
    assert report["device"]["name"] == name
    assert report["device"]["conditions"]["over"] == "ssh"
    assert report["target"]["measured_here"]
    assert name in report["target"]["reason"] or host.address in report["target"]["reason"]
    shipped = next(c for c in report["candidates"] if c["shipped"])
    assert shipped["status"] == "measured"
    assert {m["device"] for m in shipped["measurements"] if m["name"].startswith("latency_p")} == {name}
    assert {s["wall"]["device"] for s in report["stages"]} == {LocalDevice().name}
    assert host.left() == []


def test_a_device_that_is_not_the_target_is_refused_before_any_work(host, model, tmp_path, capsys):
    words = ("compile", model, "--target", "jetson", "-o", tmp_path / "bundle", "--device", host.url())
    code, _, said = on_device(capsys, *words)
    assert code == 1
    assert "The device cannot stand for the target." in said
    assert "aarch64; the device is" in said
    assert host.left() == []


def test_bench_eval_and_verify_run_there(host, bundle, tmp_path, capsys):
    name = f"{host.address}: {LocalDevice().name}"
    code, out, said = on_device(capsys, "bench", bundle, "--samples", 20, "--device", host.url(), "--json")
    assert code == 0, said
    assert {m["device"] for m in json.loads(out) if m["name"].startswith("latency_p")} == {name}
    rng = np.random.default_rng(0)
    data = tmp_path / "data.npz"
    np.savez(data, x=rng.normal(size=(60, 1, 8, 8)).astype("float32"), y=np.arange(60) % 3)
    code, there, said = on_device(capsys, "eval", bundle, "-d", data, "--device", host.url(), "--json")
    assert code == 0, said
    _, here, _ = on_device(capsys, "eval", bundle, "-d", data, "--json")
    figures = [
        {m["name"]: m["value"] for m in json.loads(text) if m["name"] == "accuracy_top1_pct"} for text in (here, there)
    ]
    assert figures[0] == figures[1] != {}
    code, out, said = on_device(capsys, "verify", bundle, "--device", host.url(), "--json")
    assert code == 0, said
    assert json.loads(out)["outputs"] == "compared"
    assert host.left() == []


def test_a_line_cut_in_mid_run_is_told_of_in_the_conditions(host, bundle, capsys, monkeypatch):
    from edgeopt.devices.ssh import device as module

    monkeypatch.setattr(module, "Link", quick_link(module.Link, host))
    code, out, said = on_device(capsys, "bench", bundle, "--samples", 100, "--device", host.url(), "--json")
    assert code == 0, said
    p50 = next(m for m in json.loads(out) if m["name"] == "latency_p50_ms")
    assert p50["n"] >= 100
    assert p50["conditions"]["line_lost_and_resumed"] == 1
    assert host.left() == []


def test_a_line_that_stays_down_in_mid_run_is_one_clear_error(host, bundle, capsys, monkeypatch):
    from edgeopt.devices.ssh import device as module

    monkeypatch.setattr(module, "Link", quick_link(module.Link, host, back_s=None))
    try:
        code, out, said = on_device(capsys, "bench", bundle, "--samples", 100, "--device", host.url())
    finally:
        host.mend()
        host.halt()  # sshd does not know yet that its client is gone
        host.serve()
    assert (code, out) == (1, "")
    assert said.count("Error: ") == 1
    assert "was lost and did not come back within 3 s" in said
    for name in host.left():
        shutil.rmtree(host.tmp / name)


def quick_link(link, host, back_s=4):
    """A link that notices soon, and whose line is cut, for four seconds or for good, at the third block of timings."""
    import threading

    from edgeopt.devices.ssh.link import Channel

    timed = []
    exchange = Channel.exchange

    def cutting(self, line, timeout_s):
        if line is not None and '"time"' in line:
            timed.append(line)
            if len(timed) == 3:
                host.cut()
                if back_s:
                    threading.Timer(back_s, host.mend).start()
        return exchange(self, line, timeout_s)

    def make(*arguments, **options):
        made = link(
            *arguments, **options | {"keepalive_s": 0.5, "connect_timeout_s": 3, "patience_s": 20 if back_s else 3}
        )
        made.start = lambda command: _cutting(link.start(made, command))
        return made

    def _cutting(channel):
        channel.exchange = cutting.__get__(channel)
        return channel

    return make


def test_ctrl_c_leaves_nothing_behind(host, bundle):
    command = [sys.executable, "-c", "from edgeopt.cli.main import main; main()", "bench", str(bundle)]
    environment = {**os.environ, "HOME": str(host.client_home)}
    process = subprocess.Popen(
        [*command, "--samples", "1000000", "--device", host.url()], env=environment, stderr=subprocess.PIPE
    )
    for _ in range(600):
        if any((host.tmp / name).glob("session-*/pid") for name in host.left()):
            break
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert host.left() == []


class TestFleet:
    @pytest.fixture
    def fleet(self, host, tmp_path):
        file = tmp_path / "devices.toml"
        file.write_text(
            f'[device.one]\nurl = "ssh://root@{host.address}:{host.port}"\npython = "{sys.executable}"\n'
            f'[device.two]\nurl = "{host.url()}"\naffinity = [0]\n'
            f'[device.dead]\nurl = "ssh://root@{host.address}:9"\n'
            '[fleet.lab]\ndevices = ["one", "two"]\n[fleet.all]\ndevices = ["one", "dead", "local"]\n'
        )
        return file

    def test_a_named_device(self, host, bundle, fleet, capsys):
        words = ("bench", bundle, "--samples", 10, "--device", "two", "--devices-file", fleet, "--json")
        code, out, said = on_device(capsys, *words)
        assert code == 0, said
        assert {m["device"].partition(": ")[0] for m in json.loads(out) if m["device"]} == {"two"}

    def test_several_at_once(self, host, bundle, fleet, capsys):
        words = ("bench", bundle, "--samples", 10, "--device", "fleet:lab", "--devices-file", fleet)
        code, out, said = on_device(capsys, *words, "--json")
        assert code == 0, said
        rows = json.loads(out)
        assert [row["device"] for row in rows] == ["one", "two"]
        assert all(row["error"] is None and row["measurements"] for row in rows)
        code, out, _ = on_device(capsys, *words)
        assert (code, out.count("measured on")) == (0, 2)
        assert host.left() == []

    def test_one_that_fails_is_told_of_and_the_others_go_on(self, host, bundle, fleet, capsys):
        words = ("bench", bundle, "--samples", 10, "--device", "fleet:all", "--devices-file", fleet)
        code, out, said = on_device(capsys, *words, "--json")
        assert code == 1, said
        rows = {row["device"]: row for row in json.loads(out)}
        assert "refuses the connection" in rows["dead"]["error"]
        assert rows["one"]["measurements"]
        assert rows["local"]["measurements"]
        code, out, said = on_device(capsys, *words)
        assert (code, "failed" in out, "Error: dead: " in said) == (1, True, True)

    def test_two_hosts(self, host, bundle, tmp_path, tmp_path_factory, capsys):
        other = SecondHost(tmp_path_factory.mktemp("third-host"), number=1)
        try:
            other.start()
            config = host.client_home / ".ssh" / "config"
            config.write_text(f"Host {other.address}\n  IdentityFile {other.client_home}/.ssh/id_ed25519\n")
            with host.known_hosts.open("a") as file:
                file.write(other.known_hosts.read_text())
            listed = tmp_path / "devices.toml"
            listed.write_text(
                f'[device.a]\nurl = "{host.url()}"\n[device.b]\nurl = "{other.url()}"\n'
                '[fleet.f]\ndevices = ["a", "b"]\n'
            )
            words = ("bench", bundle, "--samples", 10, "--device", "fleet:f", "--devices-file", listed, "--json")
            code, out, said = on_device(capsys, *words)
            assert code == 0, said + out
            assert (host.left(), other.left()) == ([], [])
        finally:
            (host.client_home / ".ssh" / "config").unlink(missing_ok=True)
            other.stop()


def test_the_bundles_own_target_says_which_versions_will_do(host, bundle, capsys, tmp_path):
    changed = tmp_path / "bundle"
    shutil.copytree(bundle, changed)
    text = (changed / "target.yaml").read_text()
    import re

    (changed / "target.yaml").write_text(re.sub(r"versions: .*", "versions: '>=99'", text))
    code, _, said = on_device(capsys, "bench", changed, "--device", host.url())
    assert code == 1
    assert "has another version of" in said
    assert "pip install" in said
    assert Path(changed).is_dir()


def test_devices_are_listed_and_asked_what_they_are(host, tmp_path, capsys):
    file = tmp_path / "devices.toml"
    file.write_text(
        f'[device.one]\nurl = "{host.url()}"\ndescription = "on the shelf"\n'
        f'[device.dead]\nurl = "ssh://root@{host.address}:9"\n[fleet.lab]\ndevices = ["one"]\n'
    )
    code, out, _ = on_device(capsys, "devices", "--devices-file", file)
    assert code == 0
    assert "on the shelf" in out
    assert "fleet:lab: one" in out
    code, out, said = on_device(capsys, "devices", "--check", "--devices-file", file, "--json")
    assert code == 1, said
    one, dead = json.loads(out)["devices"]
    assert "refuses the connection" in dead["error"]
    assert one["info"]["cpu"] == LocalDevice().info().cpu
    assert one["facts"]["runtimes"]["onnxruntime"]
    assert one["facts"]["python"].startswith("3.")
    assert one["info"]["memory_mib"] > 0
    code, out, said = on_device(capsys, "devices", "--check", "--devices-file", file)
    assert code == 1
    assert "Error: dead: The device refuses the connection." in said
    assert "onnxruntime" in out
    assert host.left() == []
