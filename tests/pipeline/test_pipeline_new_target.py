"""A target file for this machine: measured, whole, in the place of nothing."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from edgeopt.bundle.roofline import MachinePeaks
from edgeopt.cli.edge import run
from edgeopt.cli.main import cli
from edgeopt.core.errors import DeviceError, TargetError
from edgeopt.core.measurement import not_measured
from edgeopt.devices.local import LocalDevice
from edgeopt.graph.probes import write_conv
from edgeopt.pipeline import host_peaks
from edgeopt.pipeline.host_peaks import multiple_of
from edgeopt.pipeline.new_target import new_target
from edgeopt.targets.host import detect_host, stands_for
from edgeopt.targets.load import find_target, read_target


def steps(multiple, noise=0.0):
    rng = np.random.default_rng(0)
    widths = range(16, 68, 4)
    return {width: 0.2 + 0.01 * -(-width // multiple) * multiple + noise * rng.normal() for width in widths}


@pytest.mark.parametrize(("multiple", "noise"), itertools.product([8, 16, 32], [0.0, 0.005]))
def test_steps_are_found(multiple, noise):
    assert multiple_of(steps(multiple, noise)) == multiple


def test_a_straight_line_and_mere_noise_have_no_steps():
    assert multiple_of({width: 0.01 * width for width in range(16, 68, 4)}) is None
    rng = np.random.default_rng(1)
    found = [multiple_of({width: float(rng.normal()) for width in range(16, 68, 4)}) for _ in range(200)]
    assert found.count(None) > 100


def test_the_probe_is_a_convolution_of_that_width(tmp_path):
    import onnxruntime as ort

    write_conv(tmp_path / "c.onnx", 4, 6, 5)
    (y,) = ort.InferenceSession(tmp_path / "c.onnx").run(None, {"x": np.ones((1, 4, 5, 5), "float32")})
    assert y.shape == (1, 6, 5, 5)


def test_what_cannot_be_measured_is_an_error_and_no_zero(monkeypatch):
    lost = not_measured("peak_int8_gops", "GOPS", "the process was killed")
    peaks = MachinePeaks(int8=lost, float32=lost, bandwidth=lost)
    monkeypatch.setattr("edgeopt.measure.peaks.measure_peaks", lambda *_, **__: peaks)
    with pytest.raises(DeviceError, match=r"could not be measured\. Received: the process was killed"):
        host_peaks.measure_host(find_target("local"), LocalDevice())


@pytest.mark.parametrize(
    ("name", "source", "file", "message"),
    [
        ("box", "ssh://pi", "box.yaml", r"of this machine only\. Received: 'ssh://pi'"),
        ("Box One", "local", "box.yaml", r"cannot be a target's\. Received: 'Box One'"),
        ("box@one", "local", "box.yaml", r"cannot be a target's"),
        ("jetson", "local", "box.yaml", r"There is a target of that name\. Received: 'jetson': NVIDIA"),
        ("box", "local", "there.yaml", r"exists, and is not written over.*-o FILE"),
        ("box", "local", "none/box.yaml", r"There is no such folder"),
    ],
)
def test_what_cannot_be_written_is_said_before_anything_is_measured(tmp_path, monkeypatch, name, source, file, message):
    monkeypatch.setattr("edgeopt.pipeline.new_target.measure_host", lambda *_, **__: pytest.fail("measured"))
    (tmp_path / "there.yaml").write_text("mine")
    with pytest.raises(TargetError, match=message):
        new_target(name, source=source, path=tmp_path / file)
    assert [path.name for path in tmp_path.iterdir()] == ["there.yaml"]
    assert (tmp_path / "there.yaml").read_text() == "mine"


@pytest.fixture
def quick(monkeypatch):
    """The real thing on small operations."""
    monkeypatch.setattr("edgeopt.measure.peaks.SIDES", (128,))
    monkeypatch.setattr("edgeopt.measure.peaks._COPIED", 2**20)
    monkeypatch.setattr(host_peaks, "_WIDTHS", (16, 24, 32))
    monkeypatch.setattr(host_peaks, "_IMAGE", 8)


@pytest.mark.long
def test_the_file_describes_this_machine_and_can_be_compiled_for(tmp_path, quick, capsys):
    file = tmp_path / "box.yaml"
    assert run(cli, ["targets", "new", "box", "--from", "local", "-o", str(file), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    target, here = read_target(file), detect_host()
    assert target.model_dump(mode="json") == shown
    assert (target.name, target.detected, target.cores, target.memory_mib) == (
        "box",
        False,
        here.cores,
        here.memory_mib,
    )
    assert stands_for(target, here)[0]
    assert target.peaks.gops_int8 > 0
    assert target.peaks.gflops_fp32 > 0
    assert 0.1 < target.peaks.copy_gb_per_s < 2000
    inherited = find_target("local").sources
    measured = [source for source in target.sources if source not in inherited]
    assert len(measured) == 3
    assert all(source.source.startswith("experiment: ") for source in measured)
    assert run(cli, ["targets", "new", "box", "--from", "local", "-o", str(file)]) == 1
    assert "not written over" in capsys.readouterr().err
    assert run(cli, ["targets", "diff", "local", str(file)]) == 0
    assert "peaks.gops_int8" in capsys.readouterr().out


@pytest.mark.long
def test_ctrl_c_leaves_nothing(tmp_path):
    command = [sys.executable, "-m", "edgeopt", "targets", "new", "box", "--from", "local", "--json"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ)
    time.sleep(3)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert list(tmp_path.iterdir()) == []
