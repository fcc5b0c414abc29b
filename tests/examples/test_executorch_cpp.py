"""ExecuTorch's program without Python: the C++ example, on this machine and for 64-bit ARM under emulation."""

from __future__ import annotations

import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeopt.agent.runners import open_runner
from edgeopt.backends.registry import BACKENDS
from edgeopt.graph.dialects import apply_dialect
from edgeopt.targets.load import find_target

SOURCE = Path(__file__).parents[2] / "examples" / "executorch_cpp"
ROOT = Path("/usr/aarch64-linux-gnu")
WHEEL = os.environ.get("EDGEOPT_EXECUTORCH_AARCH64", "")
HOW = f"set EDGEOPT_EXECUTORCH_AARCH64 to the wheel that {SOURCE.name}/aarch64-linux-gnu.cmake says how to get"
CPUS = ("cortex-a53", "cortex-a76", "max,sme=off")  # QEMU 7.2 computes SME wrongly

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        BACKENDS["executorch"].available().version is None,
        reason=f"executorch is not installed: {BACKENDS['executorch'].available().how_to_get}",
    ),
    pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not installed: apt-get install cmake g++"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """A small int8 net as a program, inputs [16, 8, 12, 12] and what Python makes of them."""
    folder = tmp_path_factory.mktemp("program")
    (folder / "engine").mkdir()
    onnx.save(net(), folder / "net.onnx")
    target = find_target("local-xnnpack")
    rules = next(rules for rules in target.runtimes if rules.name == "executorch")
    apply_dialect(rules.dialect, folder / "net.onnx", folder / "written.onnx")
    engine = BACKENDS["executorch"].compile(folder / "written.onnx", target, rules, folder / "engine", 1)
    inputs = np.random.default_rng(1).normal(size=(16, 8, 12, 12)).astype(np.float32)
    with open_runner("executorch", engine.path, engine.options, 1) as runner:
        outputs = np.concatenate([runner.infer({"x": one[None]})["y"] for one in inputs])
    inputs.tofile(folder / "in.f32")
    return engine.path, folder / "in.f32", outputs


def net():
    """Two int8 convolutions with a ReLU, the last one's output on a grid too."""
    rng = np.random.default_rng(0)
    constants = {
        "s": np.float32(0.03),
        "z": np.int8(0),
        "a": rng.integers(-127, 128, (16, 8, 3, 3)).astype(np.int8),
        "b": rng.integers(-127, 128, (4, 16, 3, 3)).astype(np.int8),
        "as": rng.uniform(0.0005, 0.001, 16).astype(np.float32),
        "bs": rng.uniform(0.0005, 0.001, 4).astype(np.float32),
        "az": np.zeros(16, np.int8),
        "bz": np.zeros(4, np.int8),
    }
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> g (float[n, 8, 12, 12] x) => (float[n, 4, 8, 8] y) {'
        "xq = QuantizeLinear(x, s, z) xd = DequantizeLinear(xq, s, z) ad = DequantizeLinear<axis = 0>(a, as, az) "
        "c = Conv(xd, ad) r = Relu(c) rq = QuantizeLinear(r, s, z) rd = DequantizeLinear(rq, s, z) "
        "bd = DequantizeLinear<axis = 0>(b, bs, bz) d = Conv(rd, bd) dq = QuantizeLinear(d, s, z) y = DequantizeLinear(dq, s, z) }"
    )
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())
    return model


def build(folder: Path, package: Path, *more: str) -> Path:
    for command in (
        ["-S", str(SOURCE), "-B", str(folder), f"-DCMAKE_PREFIX_PATH={package}", *more],
        ["--build", str(folder)],
    ):
        done = subprocess.run(["cmake", *command], check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder / "et_run"


def run(command: list[str], program, folder: Path, environment: dict[str, str]) -> np.ndarray:
    path, inputs, expected = program
    words = [*command, str(path), str(inputs), str(folder / "out.f32"), "1", "8", "12", "12"]
    done = subprocess.run(words, check=False, env=os.environ | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "16 inferences" in done.stdout
    return np.fromfile(folder / "out.f32", np.float32).reshape(expected.shape)


def test_the_runner_gives_what_python_gives(program, tmp_path):
    import executorch

    made = build(tmp_path / "build", Path(next(iter(executorch.__path__))))
    np.testing.assert_array_equal(run([str(made)], program, tmp_path, {}), program[2])


@pytest.mark.skipif(not WHEEL, reason=HOW)
@pytest.mark.skipif(shutil.which("aarch64-linux-gnu-g++") is None, reason="apt-get install g++-aarch64-linux-gnu")
@pytest.mark.skipif(shutil.which("qemu-aarch64") is None, reason="apt-get install qemu-user")
def test_the_runner_for_arm_gives_the_same_on_every_core(program, tmp_path):
    with zipfile.ZipFile(WHEEL) as archive:
        archive.extractall(tmp_path)
    package = tmp_path / "executorch"
    toolchain = f"-DCMAKE_TOOLCHAIN_FILE={SOURCE / 'aarch64-linux-gnu.cmake'}"
    made = build(tmp_path / "build", package, toolchain)
    environment = {"QEMU_LD_PREFIX": str(ROOT), "QEMU_SET_ENV": f"LD_LIBRARY_PATH={package / 'lib'}"}
    for cpu in CPUS:
        found = run(["qemu-aarch64", "-cpu", cpu, str(made)], program, tmp_path, environment)
        np.testing.assert_allclose(found, program[2], atol=0.03 * 1.01, rtol=0, err_msg=cpu)  # one quantum
        assert np.mean(found != program[2]) < 0.001, cpu
