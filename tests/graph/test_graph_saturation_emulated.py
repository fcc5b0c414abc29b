"""The prover against a CPU without VNNI: the runtimes' own kernels under an emulated Haswell.

They leave no doubt of which weights meet in a pair: every operator gives exactly the sums that the pairs of
``edgeopt.core.saturation`` saturate to, wrong as they are.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from kernel_cases import CASES, by_position, make_case
from run_models import by_onnxruntime, by_openvino

from edgeopt.graph.dialects import apply_dialect
from edgeopt.graph.saturation import prove

RUN = {"onnxruntime": by_onnxruntime, "openvino": by_openvino}
EMULATOR = shutil.which("qemu-x86_64")
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(EMULATOR is None, reason="needs qemu-x86_64, the emulator (Debian package qemu-user)"),
]


def run_as_haswell(folder: Path, runtime: str = "onnxruntime") -> None:
    """Run every model of ``folder`` as on a CPU with AVX2 and without VNNI."""
    script = Path(__file__).parent / "run_models.py"
    command = [str(EMULATOR), "-cpu", "Haswell", sys.executable, str(script), runtime, str(folder)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kernels")
    cases = {name: make_case(name) for name in CASES}
    for name, case in cases.items():
        onnx.save(case.model, folder / f"{name}.onnx")
        np.save(folder / f"{name}.in.npy", case.x)
    run_as_haswell(folder)
    return folder, cases


@pytest.mark.parametrize("name", CASES)
def test_kernels_saturate_exactly_the_pairs_that_the_prover_bounds(kernels, name):
    folder, cases = kernels
    case = cases[name]
    emulated = by_position(np.load(folder / f"{name}.out.npy"))
    np.testing.assert_array_equal(emulated, case.saturating)
    wrong = set(np.flatnonzero((emulated != case.exact).any(0)))
    assert bool(wrong) == CASES[name][-1]  # else the case shows nothing
    (layer,) = prove(folder / f"{name}.onnx").layers
    assert wrong <= {one.channel for one in layer.witnesses}


@pytest.fixture(scope="module")
def openvino_kernels(tmp_path_factory):
    pytest.importorskip("openvino", reason="needs the extra openvino")
    folder = tmp_path_factory.mktemp("openvino")
    cases = {name: make_case(name) for name in CASES}
    for name, case in cases.items():
        onnx.save(case.qdq, folder / f"{name}.onnx")
        np.save(folder / f"{name}.in.npy", case.x.astype(np.float32))
    run_as_haswell(folder, "openvino")
    return folder, cases


@pytest.mark.parametrize("name", CASES)
def test_openvino_saturates_the_same_pairs_or_those_of_channels_filled_up(openvino_kernels, name):
    folder, cases = openvino_kernels
    exact, narrow, filled = cases[name].sums
    emulated = by_position(np.load(folder / f"{name}.out.npy"))
    expected = (narrow, filled) if CASES[name][-1] else (exact,)
    assert any(np.array_equal(emulated, sums) for sums in expected)
    (layer,) = prove(folder / f"{name}.onnx", "openvino").layers
    assert set(np.flatnonzero((emulated != exact).any(0))) <= {one.channel for one in layer.witnesses}


@pytest.mark.parametrize("net", ["resnet", "mobilenet"])
@pytest.mark.parametrize(("plain", "repaired"), [("ort-x86", "ort-x86-novnni"), ("openvino", "openvino-novnni")])
def test_a_repaired_net_computes_the_same_without_vnni_and_an_unrepaired_one_does_not(
    case, tmp_path, net, plain, repaired
):
    net, runtime = case(net), "openvino" if plain == "openvino" else "onnxruntime"
    x = net.samples[:8] * 3  # brighter than what it was calibrated on: inputs at the end of their grids
    paths = {name: tmp_path / f"{name}.onnx" for name in (plain, repaired)}
    for name, path in paths.items():
        apply_dialect(name, net.int8_path, path)
        np.save(path.with_suffix(".in.npy"), x)
    here = {name: RUN[runtime](path, x) for name, path in paths.items()}
    run_as_haswell(tmp_path, runtime)
    there = {name: np.load(path.with_suffix(".out.npy")) for name, path in paths.items()}
    quantum = np.abs(here[plain]).max() / 127
    apart = {name: np.abs(here[name] - there[name]).max() / quantum for name in paths}
    assert prove(paths[repaired], runtime).is_safe
    assert not prove(paths[plain], runtime).is_safe
    assert apart[repaired] <= 1
    assert apart[plain] > 1
