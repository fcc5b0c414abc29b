"""TensorRT over SSH, to the wire: a stand-in for TensorRT and CUDA, which says that it is one, on a second host."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from second_host import why_not

from edgeopt.bundle.load import load_bundle, verify_files
from edgeopt.cli.edge import run
from edgeopt.cli.main import cli
from edgeopt.devices.local import LocalDevice

sys.path.insert(0, str(Path(__file__).parents[1] / "backends"))
import stand_in_tensorrt

REASON = why_not()
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(bool(REASON), reason=REASON),
    pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc for the stand-in of the CUDA runtime"),
    pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="the real TensorRT is here"),
]
VERSION = "10.3.0+stand.in"
TARGET = """
schema_version: 1
name: gpu-box
title: A box with a GPU that is not there
isa: {arch: x86_64}
runtimes:
  - {name: tensorrt, dialect: tensorrt, versions: '>=10.3,<12', precisions: [fp32], opset_max: 20}
default_recipe: fp32
float_recipe: fp32
sources:
  - {fact: It is not there., source: this test}
"""


@pytest.fixture
def python(tmp_path):
    """An interpreter that has the stand-in."""

    def make(**variables):
        folder = tmp_path / "stand-in"
        folder.mkdir(exist_ok=True)
        stand_in_tensorrt.install(folder)
        file = tmp_path / "python3"
        words = " ".join(f"{key}='{value}'" for key, value in {"STAND_IN_VERSION": VERSION, **variables}.items())
        file.write_text(f'#!/bin/sh\nexec env PYTHONPATH="{folder}:$PYTHONPATH" {words} {sys.executable} "$@"\n')
        file.chmod(0o755)
        return str(file)

    return make


@pytest.fixture
def words(tmp_path):
    """What compiles a model that doubles, as the stand-in's engine does."""
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "two"], ["y"])],
        "double",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(np.float32([2, 2, 2]), "two")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path / "double.onnx"
    )
    (tmp_path / "gpu-box.yaml").write_text(TARGET)
    data = np.random.default_rng(0).normal(size=(90, 3)).astype("float32")
    np.savez(tmp_path / "data.npz", x=data, y=np.arange(90) % 3)
    words = ["compile", tmp_path / "double.onnx", "-t", tmp_path / "gpu-box.yaml", "-d", tmp_path / "data.npz"]
    return [str(word) for word in (*words, "-r", "fp32", "-o", tmp_path / "bundle", "--json")]


@pytest.fixture
def bundle(words, tmp_path, capsys):
    """Compiled here; its plan is still to be built."""
    code = run(cli, words)
    out, said = capsys.readouterr()
    assert code == 0, said + out
    return tmp_path / "bundle"


def build(capsys, bundle, url):
    code = run(cli, ["build", str(bundle), "--device", url, "--json"])
    out, said = capsys.readouterr()
    return code, out, said


def test_the_engine_is_built_there_brought_back_and_measured_there(host, bundle, python, capsys):
    assert load_bundle(bundle).manifest.engine.status == "not_built"
    code, out, said = build(capsys, bundle, host.url(python=python()))
    assert code == 0, said + out
    built = load_bundle(bundle)
    assert (built.manifest.engine.status, built.manifest.runtime_version) == ("built", VERSION)
    assert built.manifest.engine.next_command is None
    assert verify_files(built) == []
    assert {"engine/model.plan", "engine/layers.json", "engine/timing.cache"} < set(built.manifest.files)
    assert {"engine/model.plan.json", "engine/timing.cache.json"} < set(built.manifest.files)
    assert json.loads((bundle / "engine" / "model.plan.json").read_text())["tensorrt"] == VERSION
    assert (bundle / "engine" / "timing.cache").read_bytes() == b"timings"
    assert json.loads((bundle / "engine" / "layers.json").read_text()) == {"Layers": ["double"]}
    report = json.loads(out)
    shipped = next(c for c in report["candidates"] if c["shipped"])
    name = f"{host.address}: {LocalDevice().name}"
    assert shipped["status"] == "measured"
    p50 = next(m for m in shipped["measurements"] if m["name"] == "latency_p50_ms")
    assert (p50["device"], p50["conditions"]["runtime_version"]) == (name, VERSION)
    assert VERSION in report["headline"][0]
    assert report["target"]["measured_here"]
    assert any(VERSION in event["message"] for event in shipped["events"])
    assert host.left() == []
    # Not twice; and what was built can be measured and verified there again.
    assert build(capsys, bundle, host.url(python=python()))[0] == 1
    assert run(cli, ["verify", str(bundle), "--device", host.url(python=python()), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["outputs"] == "compared"


def test_compile_with_the_device_builds_and_measures_there_too(host, words, tmp_path, python, capsys):
    code = run(cli, [*words, "--device", host.url(python=python())])
    out, said = capsys.readouterr()
    assert code == 0, said + out
    shipped = next(c for c in json.loads(out)["candidates"] if c["shipped"])
    assert (shipped["status"], shipped["runtime_version"]) == ("measured", VERSION)
    # The accuracy is the portable graph's, on this machine, and says so.
    accuracy = next(m for m in shipped["measurements"] if m["name"] == "accuracy_top1_pct")
    assert accuracy["device"] == LocalDevice().name
    assert "portable graph" in accuracy["conditions"]["runtime"]
    assert verify_files(load_bundle(tmp_path / "bundle")) == []
    assert host.left() == []


@pytest.mark.parametrize(
    ("variables", "match"),
    [
        ({"STAND_IN_BUILD_ERROR": "Requested amount of GPU memory: out of memory"}, "lower --workspace-mib"),
        ({"STAND_IN_VERSION": "8.6.1"}, "has another version of tensorrt than the target asks for. Received: 8.6.1"),
        ({"STAND_IN_FACTOR": "-2"}, "computes something else than the model"),
    ],
)
def test_a_failure_is_one_clear_error_and_the_bundle_stays_as_it_was(host, bundle, python, capsys, variables, match):
    before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    code, _, said = build(capsys, bundle, host.url(python=python(**variables)))
    assert code == 1
    assert match in said
    assert {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()} == before
    assert host.left() == []


def test_a_device_without_tensorrt_says_how_to_get_it(host, bundle, capsys):
    code, _, said = build(capsys, bundle, host.url())
    assert code == 1
    assert "has no tensorrt" in said
    assert "sudo apt-get install python3-libnvinfer" in said


def test_this_machine_is_no_device_to_build_on(bundle, capsys):
    code, _, said = build(capsys, bundle, "local")
    assert (code, "python3 build_engine.py" in said) == (1, True)
