"""``verify_coreml.py``, which travels with a Core ML package, against a stand-in for Core ML: there is no macOS here."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
from backend_nets import conv_net, quantized_net, two_input_net
from onnx.reference import ReferenceEvaluator
from stand_in_coreml import install

from edgeopt.backends.coreml import PACKAGE, SCRIPT
from edgeopt.backends.coreml_folder import write_script
from edgeopt.backends.coreml_names import feature_names
from edgeopt.backends.torch_program.build import build_program

COUNT = 3


def made_folder(net, folder, batch=1):
    """An engine's folder as a bundle ships it; the package itself is empty, as only the stand-in opens it."""
    graph = folder / "graph.onnx"
    onnx.save(net, graph)
    program = build_program(graph, batch, "Core ML")
    specs = [*program.plan.inputs, *program.outputs]
    engine = folder / "engine"
    (engine / PACKAGE).mkdir(parents=True)
    write_script(engine, program, feature_names(specs), "iOS17")
    rng = np.random.default_rng(1)
    inputs = {
        spec.name: rng.integers(0, 7, (COUNT, *spec.shape[1:])).astype(spec.dtype)
        if spec.dtype.startswith("int")
        else rng.normal(size=(COUNT, *spec.shape[1:])).astype(spec.dtype)
        for spec in program.plan.inputs
    }
    free = conv_net() if net.graph.input[0].type.tensor_type.shape.dim[0].dim_value else net  # of any batch
    outputs = ReferenceEvaluator(free).run(None, inputs)
    np.savez(engine / "reference_inputs.npz", **inputs)
    np.savez(engine / "reference_outputs.npz", **dict(zip([s.name for s in program.outputs], outputs, strict=True)))
    return graph, engine


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}
    for name, net in (("conv", conv_net()), ("quantized", quantized_net()), ("two", two_input_net())):
        made[name] = made_folder(net, tmp_path_factory.mktemp(name))
    # Three samples: the second batch of two is padded.
    made["pairs"] = made_folder(conv_net(), tmp_path_factory.mktemp("pairs"), batch=2)
    made["fixed"] = made_folder(conv_net(2), tmp_path_factory.mktemp("fixed"), batch=1)
    return made, install(tmp_path_factory.mktemp("stand-in"))


@pytest.fixture
def run(folders, tmp_path):
    made, stand_in = folders

    def call(name, *arguments, how="", change=None, path=None):
        graph, source = made[name]
        engine = tmp_path / "engine"
        shutil.copytree(source, engine)
        if change is not None:
            change(engine)
        environment = os.environ | {"STAND_IN": how, "STAND_IN_GRAPH": str(graph), "PYTHONPATH": str(path or stand_in)}
        command = [sys.executable, str(engine / SCRIPT.name), "--runs", "3", *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)

    return call


@pytest.mark.parametrize("name", ["conv", "quantized", "two", "pairs", "fixed"])
def test_outputs_that_are_the_bundles_pass_and_are_timed(run, name, tmp_path):
    done = run(name, "--report", tmp_path / "report.json", "--compute-units", "CPU_ONLY")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("PASS\n")
    assert "median" in done.stdout
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["passed"]
    assert (told["samples"], told["compute_units"], len(told["times_ms"])) == (COUNT, "CPU_ONLY", 3)
    assert all(row["share"] <= row["allowed"] for row in told["outputs"])


@pytest.mark.parametrize("how", ["wrong", "nan"])
def test_outputs_that_differ_fail(run, how):
    done = run("conv", how=how)
    assert done.returncode == 1
    assert "FAIL: an output differs" in done.stdout


def test_a_wider_tolerance_can_be_asked_for(run):
    assert run("conv", "--tolerance", "0.5", how="wrong").returncode == 0


def without(name):
    return lambda engine: (engine / name).unlink()


def garbled(engine):
    (engine / "reference_inputs.npz").write_bytes(b"no archive")


def renamed(engine):
    np.savez(engine / "reference_outputs.npz", other=np.zeros((COUNT, 5), "float32"))


def other_shape(engine):
    np.savez(engine / "reference_outputs.npz", logits=np.zeros((COUNT, 7), "float32"))


@pytest.mark.parametrize(
    ("how", "change", "message"),
    [
        ("linux", None, "Core ML did not run the package: Model prediction is only supported on macOS"),
        ("refuses", None, "Core ML cannot load model.mlpackage: Error compiling model"),
        ("renamed", None, "Core ML gave no output logits, only var_7"),
        ("", without("reference_inputs.npz"), "reference_inputs.npz must lie beside this script"),
        ("", garbled, "reference_inputs.npz cannot be read"),
        ("", renamed, "The reference files lack logits"),
        ("", other_shape, r"The output logits has shape [3, 5], expected [3, 7]"),
    ],
)
def test_every_failure_is_one_sentence(run, how, change, message):
    done = run("conv", how=how, change=change)
    assert done.returncode == 1
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1


def test_without_coremltools_it_says_what_to_install(run, tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "coremltools.py").write_text("raise ImportError('not here')")
    done = run("conv", path=tmp_path / "broken")
    assert done.returncode == 1
    assert done.stderr == "coremltools cannot be imported (not here): pip install coremltools\n"


def test_the_script_is_python_3_8_and_imports_nothing_of_edgeopt():
    tree = ast.parse(SCRIPT.read_text(), feature_version=(3, 8))
    names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    names |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert not {name for name in names if name.startswith("edgeopt")}
