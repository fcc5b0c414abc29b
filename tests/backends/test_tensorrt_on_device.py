"""The files that build and run a TensorRT engine on the device, against a stand-in for TensorRT and CUDA."""

from __future__ import annotations

import ast
import ctypes.util
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import stand_in_tensorrt
from backend_nets import conv_net, make_rules, make_target

from edgeopt.agent.runners import tensorrt as runner
from edgeopt.agent.runners import tensorrt_execution
from edgeopt.agent.runners.contract import BatchError, RunnerError
from edgeopt.backends.registry import BACKENDS
from edgeopt.backends.tensorrt_folder import FOLDER_FILES

pytestmark = [
    pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc for the stand-in of the CUDA runtime"),
    pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="the real TensorRT is here"),
]


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory):
    return stand_in_tensorrt.install(tmp_path_factory.mktemp("stand-in"))


@pytest.fixture
def in_process(stand_in, monkeypatch):
    monkeypatch.syspath_prepend(stand_in)
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: str(stand_in / "libcudart.so"))
    yield tensorrt_execution.load_cudart()
    sys.modules.pop("tensorrt", None)


@pytest.fixture
def folder(save, empty, monkeypatch):
    """A portable folder, as the backend makes it, with reference inputs and outputs of the stand-in's engine."""
    monkeypatch.setattr("edgeopt.backends.tensorrt.rtx_version", lambda: None)  # proved elsewhere; a second each here
    engine = BACKENDS["tensorrt"].compile(save(conv_net()), make_target(), make_rules("tensorrt"), empty(), 1)
    x = np.random.default_rng(0).normal(size=(11, 3)).astype("float32")
    np.savez(engine.directory / "reference_inputs.npz", x=x)
    np.savez(engine.directory / "reference_outputs.npz", y=2 * x)
    return engine.directory


def build(folder, stand_in, *arguments, **environment):
    return subprocess.run(
        [sys.executable, str(folder / "build_engine.py"), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(stand_in), "LD_LIBRARY_PATH": str(stand_in), **environment},
        check=False,
    )


def test_it_builds_and_verifies(folder, stand_in):
    done = build(folder, stand_in, "--verify")
    assert done.returncode == 0, done.stderr
    assert "y: cosine 1.000000" in done.stdout
    assert "PASS" in done.stdout
    plan = json.loads((folder / "model.plan").read_text())
    assert (plan["low"], plan["high"], plan["size"]) == ([1, 3], [8, 3], 1024 << 20)
    assert json.loads((folder / "layers.json").read_text()) == {"Layers": ["double"]}
    assert (folder / "timing.cache").read_bytes() == b"timings"
    assert not list(folder.glob("*.part"))


def test_the_command_line_overrides_the_settings(folder, stand_in):
    assert build(folder, stand_in, "--max-batch", "32", "--workspace-mib", "64").returncode == 0
    plan = json.loads((folder / "model.plan").read_text())
    assert (plan["high"], plan["size"]) == ([32, 3], 64 << 20)


@pytest.mark.parametrize(
    ("pattern", "capability", "flagged"),
    [
        ("2:4", 87, True),
        ("1:4", 80, True),
        ("4:8", 87, False),
        ("2:4", 75, False),
        ("2:4", None, False),
        ("", 87, False),
    ],
)
def test_sparse_weights_are_looked_for_where_the_gpu_has_kernels(pattern, capability, flagged, save, empty, stand_in):
    net = conv_net()
    if pattern:
        net.graph.node[0].metadata_props.add(key="edgeopt.sparsity", value=pattern)
    target = make_target(compute_capability=capability)
    engine = BACKENDS["tensorrt"].compile(save(net), target, make_rules("tensorrt"), empty(), 1)
    assert json.loads((engine.directory / "build.json").read_text())["sparse_weights"] is flagged
    assert ("--sparsity=enable" in (engine.directory / "trtexec.sh").read_text()) is flagged
    assert build(engine.directory, stand_in).returncode == 0
    flags = ["SPARSE_WEIGHTS"] if flagged else []
    assert json.loads((engine.directory / "model.plan").read_text())["flags"] == flags


def test_sparse_weights_can_be_asked_for_by_hand(folder, stand_in):
    assert build(folder, stand_in, "--sparse-weights").returncode == 0
    assert json.loads((folder / "model.plan").read_text())["flags"] == ["SPARSE_WEIGHTS"]


def test_outputs_that_differ_are_exit_code_4(folder, stand_in):
    done = build(folder, stand_in, "--verify", STAND_IN_FACTOR="-2")
    assert done.returncode == 4
    assert "FAIL" in done.stdout


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"STAND_IN_BUILD_ERROR": "Requested amount of GPU memory: out of memory"}, "lower --workspace-mib"),
        ({"STAND_IN_BUILD_ERROR": "CUDA initialization failure with error: 35"}, "run this on the device itself"),
        ({"STAND_IN_BUILD_ERROR": "Unsupported SM: 0x809"}, "does not know this GPU"),
        ({"STAND_IN_PARSE_ERROR": "Plugin not found"}, r"node 'bad' \(Foo\): Plugin not found.*upgrade TensorRT"),
        ({"STAND_IN_PARSE_ERROR": "shiftIsAllZeros(zeroPoint)"}, "symmetric int8 only"),
        ({"STAND_IN_VERSION": "8.6.1"}, "8.6.1 is too old.*JetPack 6.1"),
    ],
)
def test_a_failure_is_explained_and_leaves_no_plan(folder, stand_in, environment, message):
    done = build(folder, stand_in, **environment)
    assert done.returncode == 1
    assert re.search(message, done.stderr), done.stderr
    assert not (folder / "model.plan").exists()


def test_a_missing_module_says_how_to_get_it(folder, tmp_path):
    done = build(folder, tmp_path, "--module", "tensorrt")
    assert done.returncode == 1
    assert "sudo apt install python3-libnvinfer" in done.stderr


def test_missing_reference_files_are_named(folder, stand_in):
    (folder / "reference_outputs.npz").unlink()
    done = build(folder, stand_in, "--verify")
    assert done.returncode == 1
    assert "needs reference_outputs.npz beside this script" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-batch", "0"], "must be 1 or more"),
        (["--min-batch", "9"], "must be in order"),
        (["--onnx", "none.onnx"], "there is no file none.onnx"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error(folder, stand_in, arguments, message):
    done = build(folder, stand_in, *arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_an_old_plan_survives_a_failed_build(folder, stand_in):
    (folder / "model.plan").write_bytes(b"old")
    assert build(folder, stand_in, STAND_IN_BUILD_ERROR="no").returncode == 1
    assert (folder / "model.plan").read_bytes() == b"old"


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "model.plan"
    path.write_text(json.dumps({"factor": 2, "low": [1, 3], "high": [4, 3]}))
    return path


def test_the_runner_copies_runs_and_frees(in_process, plan):
    before = in_process.stand_in_allocated()
    with runner.open_runner(plan, {}, None) as opened:
        assert opened.inputs == {"x": ("float32", ["?", 3])}
        assert opened.outputs == {"y": ("float32", ["?", 3])}
        for count in (1, 4, 2):
            opened.resize(count)
            x = np.asfortranarray(np.random.default_rng(count).normal(size=(count, 3)).astype("float32"))
            np.testing.assert_array_equal(opened.infer({"x": x})["y"], 2 * x)
        with pytest.raises(BatchError, match="from 1 to 4"):
            opened.resize(5)
        with pytest.raises(RunnerError, match=r"profile does not take input 'x' at shape \[5, 3\]"):
            opened.infer({"x": np.zeros((5, 3), "float32")})
        with pytest.raises(RunnerError, match="'x' is float32; received float64"):
            opened.infer({"x": np.zeros((1, 3))})
    assert in_process.stand_in_allocated() == before
    with pytest.raises(RunnerError, match="closed"):
        opened.infer({"x": np.zeros((1, 3), "float32")})


@pytest.mark.parametrize(
    ("how", "message"), [(1, "error 35: CUDA driver version is insufficient"), (2, "out of memory")]
)
def test_a_failure_of_cuda_is_reported(in_process, plan, how, message):
    in_process.stand_in_fail(how)
    try:
        with pytest.raises(RunnerError, match=message), runner.open_runner(plan, {}, None) as opened:
            opened.infer({"x": np.zeros((1, 3), "float32")})
    finally:
        in_process.stand_in_fail(0)


def test_a_plan_of_another_version_is_refused(in_process, plan):
    plan.write_bytes(b"garbage")
    with pytest.raises(RunnerError, match="runs only with the version and on the GPU that it was built for"):
        runner.open_runner(plan, {}, None)


def test_a_type_that_numpy_does_not_have_is_refused(in_process, plan, monkeypatch):
    monkeypatch.setenv("STAND_IN_DTYPE", "FP4")
    with pytest.raises(RunnerError, match="which NumPy does not have"):
        runner.open_runner(plan, {}, None)


def test_a_plan_that_is_not_built_says_what_to_run(tmp_path):
    with pytest.raises(RunnerError, match=r"Run build_engine\.py"):
        runner.open_runner(tmp_path / "model.plan", {}, None)


def test_without_tensorrt_the_runner_says_so(plan):
    with pytest.raises(RunnerError, match="TensorRT is not usable here"):
        runner.open_runner(plan, {}, None)


FILES = [*FOLDER_FILES, *sorted(Path(runner.__file__).parent.glob("*.py"))]


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_what_travels_is_python_3_8(file):
    ast.parse(file.read_text(), feature_version=(3, 8))
    assert "from __future__ import annotations" in file.read_text() or file.read_text().count("\n") < 2


def test_the_runners_work_without_edgeopt(tmp_path):
    """The agent is copied to devices alone: its runners must import nothing of the rest."""
    package = Path(runner.__file__).parent.parent
    shutil.copytree(package, tmp_path / "agent")
    code = """
import sys
import agent.runners.onnxruntime, agent.runners.openvino, agent.runners.ort_mobile, agent.runners.tensorrt
print(sorted(n for n in sys.modules if n.split(".")[0] in ("edgeopt", "onnxruntime", "openvino", "tensorrt", "onnx")))
"""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_real_cuda_runtime_answers_to_our_declarations():
    try:
        cuda = tensorrt_execution.load_cudart()
    except ImportError as error:
        pytest.skip(str(error))
    stream = ctypes.c_void_p()
    status = cuda.cudaStreamCreate(ctypes.byref(stream))
    if status == 0:
        assert cuda.cudaStreamDestroy(stream) == 0
    else:
        assert cuda.cudaGetErrorString(status).decode().startswith(("CUDA driver", "no CUDA-capable"))
