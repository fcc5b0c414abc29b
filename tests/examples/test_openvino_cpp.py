"""The C++ sample, compiled against the OpenVINO wheel's own headers: its outputs are Python's, bit for bit."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import helper
from sample_bundle import expected, fill_bundle, images, linear_onnx, sample_manifest

from edgeopt.backends.registry import BACKENDS
from edgeopt.bundle.layout import ENGINE, write_reference
from edgeopt.bundle.load import load_bundle
from edgeopt.bundle.manifest import EngineRecord
from edgeopt.bundle.write import write_bundle
from edgeopt.targets.load import find_target
from edgeopt.targets.schema import RuntimeRules

pytest.importorskip("openvino", reason="pip install 'edgeopt[openvino]'")
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        shutil.which("cmake") is None or shutil.which("g++") is None, reason="apt-get install cmake g++"
    ),
]

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "examples" / "openvino_cpp"


@pytest.fixture(scope="module")
def sample():
    spec = importlib.util.spec_from_file_location("openvino_cpp_run", SAMPLE / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def program(sample, tmp_path_factory):
    return sample.build(tmp_path_factory.mktemp("cpp"))


def compiled(graph, folder, batch=2, **options):
    rules = RuntimeRules(
        name="openvino", dialect="float", versions="", precisions=("fp32",), opset_max=25, options=options
    )
    folder.mkdir()
    return BACKENDS["openvino"].compile(graph, find_target("openvino-cpu"), rules, folder, batch)


def python_outputs(engine, inputs):
    with BACKENDS["openvino"].load(engine, 1) as opened:
        return opened.infer(inputs)


def two_outputs(path):
    """The linear net with a second output of another dtype: the program writes them one after another."""
    linear_onnx("batch", path)
    model = onnx.load(path)
    model.graph.node.append(helper.make_node("ArgMax", ["logits"], ["best"], axis=1, keepdims=0))
    model.graph.output.append(helper.make_tensor_value_info("best", onnx.TensorProto.INT64, ["batch"]))
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("blob", [False, True], ids=["IR", "compiled model"])
def test_the_outputs_are_pythons_bit_for_bit(sample, program, tmp_path, capfd, blob):
    engine = compiled(two_outputs(tmp_path / "m.onnx"), tmp_path / "e", blob=blob)
    inputs = {"x": images(2, seed=5)}
    made = sample.run(program, SimpleNamespace(engine=engine), inputs, tmp_path)
    wanted = python_outputs(engine, inputs)
    assert list(made) == ["logits", "best"]
    for name, want in wanted.items():
        np.testing.assert_array_equal(made[name], want)
        assert made[name].dtype == want.dtype
    np.testing.assert_allclose(made["logits"], expected(inputs["x"]), atol=1e-4)
    said = capfd.readouterr().err
    assert "output logits" in said
    assert ("is not for here" in said) is False


def test_a_compiled_model_that_is_not_for_here_falls_back_to_the_ir(sample, program, tmp_path, capfd):
    engine = compiled(two_outputs(tmp_path / "m.onnx"), tmp_path / "e", blob=True)
    engine.path.write_bytes(engine.path.read_bytes().replace(b"ov=20", b"ov=19", 1))
    inputs = {"x": images(2)}
    made = sample.run(program, SimpleNamespace(engine=engine), inputs, tmp_path)
    np.testing.assert_allclose(made["logits"], expected(inputs["x"]), atol=1e-4)
    assert "The compiled model is not for here, the IR is compiled instead" in capfd.readouterr().err


def test_wrong_arguments_are_one_sentence_and_exit_1(program, tmp_path):
    engine = compiled(two_outputs(tmp_path / "m.onnx"), tmp_path / "e")
    options = tmp_path / "options"
    options.write_text("device CPU\n")
    short = tmp_path / "short"
    short.write_bytes(bytes(8))
    for arguments, message in (
        ([], "Usage: openvino_cpp"),
        ([engine.path, tmp_path / "none", short], "The options cannot be read"),
        ([engine.path, options, short], "has 8 bytes; the engine takes 384"),
        ([engine.path, options, tmp_path / "none"], "The input cannot be read"),
        ([engine.path, options, short, short], "The engine takes 1 inputs; received 2"),
        ([tmp_path / "none.blob", options, short], "The engine cannot be read"),
    ):
        command = [str(program), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert message in done.stderr


@pytest.mark.parametrize("spoilt", [False, True], ids=["as compiled", "spoilt"])
def test_a_bundle_is_run_in_cpp_and_compared_with_its_reference(tmp_path, spoilt):
    x = images(8)
    made = {}

    def fill(folder):
        fill_bundle(folder, 2)
        shutil.rmtree(folder / ENGINE)
        made["engine"] = compiled(folder / "model.onnx", folder / ENGINE)
        write_reference(folder, {"x": x}, {"logits": (expected(x) + spoilt).astype("float32")})

    def manifest(_):
        return sample_manifest(2, runtime="openvino", engine=EngineRecord.of(made["engine"]).model_dump())

    bundle = write_bundle(tmp_path / "b", fill, manifest)
    assert load_bundle(bundle).manifest.runtime == "openvino"
    command = [sys.executable, str(SAMPLE / "run.py"), str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == int(spoilt), done.stderr
    assert "logits: largest difference from Python" in done.stdout
