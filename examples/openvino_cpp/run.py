"""Build the C++ sample, run a bundle's engine with it, and compare with the bundle's reference outputs.

python examples/openvino_cpp/run.py dist/MODEL-openvino-cpu
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from edgeopt.agent.runners.openvino import compile_properties
from edgeopt.bundle.layout import read_reference
from edgeopt.bundle.load import Bundle, load_bundle
from edgeopt.bundle.tolerance import TOLERANCES
from edgeopt.core.errors import BundleError

HERE = Path(__file__).parent


def build(folder: Path) -> Path:
    """Compile the sample against the headers and libraries of the installed wheel."""
    found = find_spec("openvino")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("The OpenVINO wheel is not installed: pip install 'edgeopt[openvino]'")
    package = Path(found.submodule_search_locations[0]) / "cmake"
    for command in (
        ["cmake", "-S", str(HERE), "-B", str(folder), f"-DOpenVINO_DIR={package}"],
        ["cmake", "--build", str(folder)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command[:2])} failed:\n{done.stdout}{done.stderr}")
    return folder / "openvino_cpp"


def run(program: Path, bundle: Bundle, inputs: dict[str, np.ndarray], folder: Path) -> dict[str, np.ndarray]:
    """Run one batch, at the engine's own shape, in C++."""
    engine = bundle.engine
    options = folder / "options.txt"
    properties = {"device": engine.options["device"], **compile_properties(engine.options, 1)}
    lines = [f"{key} {_text(value)}" for key, value in properties.items()]
    options.write_text("\n".join(lines) + "\n")
    files = []
    for spec in engine.inputs:
        files.append(folder / f"{len(files)}.bin")
        files[-1].write_bytes(np.ascontiguousarray(inputs[spec.name]).tobytes())
    command = [str(program), str(engine.path), str(options), *map(str, files)]
    done = subprocess.run(command, capture_output=True, check=False)
    sys.stderr.write(done.stderr.decode(errors="replace"))
    if done.returncode != 0:
        raise SystemExit(done.returncode)
    outputs, start = {}, 0
    for spec in engine.outputs:
        size = int(np.prod([int(dim) for dim in spec.shape])) * np.dtype(spec.dtype).itemsize
        flat = np.frombuffer(done.stdout[start : start + size], spec.dtype)
        outputs[spec.name] = flat.reshape([int(dim) for dim in spec.shape])
        start += size
    return outputs


def _text(value: object) -> str:
    """As OpenVINO reads it."""
    return {True: "YES", False: "NO"}[value] if isinstance(value, bool) else str(value)


def main() -> int:
    """Exit 0 where every output is inside the bundle's tolerance."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    bundle = load_bundle(parser.parse_args().bundle)
    if bundle.manifest.runtime != "openvino" or bundle.engine.status != "built":
        raise BundleError("This sample runs built engines of OpenVINO.", got=bundle.manifest.runtime)
    reference = read_reference(bundle.directory)
    if reference is None:
        raise BundleError("The bundle has no reference samples.", got=bundle.directory)
    inputs, expected = reference
    batch = bundle.manifest.engine.batch or 1
    share = TOLERANCES[bundle.manifest.precision][0]
    worst = dict.fromkeys(expected, 0.0)
    with tempfile.TemporaryDirectory() as scratch:
        program = build(Path(scratch) / "build")
        for start in range(0, len(next(iter(inputs.values()))) - batch + 1, batch):
            made = run(program, bundle, {k: v[start : start + batch] for k, v in inputs.items()}, Path(scratch))
            for name, want in expected.items():
                apart = float(np.abs(made[name].astype(float) - want[start : start + batch]).max())
                worst[name] = max(worst[name], apart)
    passed = True
    for name, want in expected.items():
        allowed = share * float(np.ptp(want.astype(float)))
        passed &= worst[name] <= allowed
        print(f"{name}: largest difference from Python {worst[name]:.3g}, allowed {allowed:.3g}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
