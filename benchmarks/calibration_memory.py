"""Peak memory of a compile with 100 and with 10,000 calibration samples, for every observer.

    python benchmarks/calibration_memory.py

Each run is a fresh process; its peak is VmHWM of the process itself, as the kernel counts it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

RUN = """
import sys
from pathlib import Path
import torch
from edgeopt.compress.base import StepContext
from edgeopt.compress.quantize import QuantizeStep
from edgeopt.data.load import load_data
from edgeopt.model.load import load_model
from edgeopt.recipes.load import load_recipe
from edgeopt.recipes.schema import Quantize
from edgeopt.targets.load import find_target

folder, observer, samples = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.manual_seed(0)
net = torch.nn.Sequential(
    torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(16, 32, 3, stride=2), torch.nn.ReLU(),
    torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(32, 10),
).eval()
batch = torch.export.Dim("batch")
program = torch.export.export(net, (torch.zeros(2, 3, 32, 32),), dynamic_shapes=({0: batch},))
model = load_model(program)
data = load_data(folder / "data.npz", inputs=model.inputs, outputs=model.outputs)
overrides = [f"steps.quantize.observer={observer}", f"steps.quantize.calibration_samples={samples}"]
config = load_recipe("int8-ptq-accurate", overrides).step(Quantize)
target = find_target("x86-vnni")
QuantizeStep().run(model, config, StepContext(data=data, target=target, seed=0, progress=lambda _: None))
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as scratch:
        arrays = {"x": rng.standard_normal((600, 3, 32, 32)), "x_calibration": rng.standard_normal((10_000, 3, 32, 32))}
        arrays["x_tune"] = rng.standard_normal((200, 3, 32, 32))
        floats = {name: array.astype(np.float32) for name, array in arrays.items()}
        np.savez(Path(scratch) / "data.npz", **floats, y=np.arange(600) % 10, y_tune=np.arange(200) % 10)
        print("10,000 samples of 3x32x32 float32 are 117 MiB; medians of", arguments.runs, "processes each")
        for observer in ("minmax", "moving_average", "percentile", "histogram", "entropy"):
            few, many = (
                float(np.median([_peak_mib(scratch, observer, samples) for _ in range(arguments.runs)]))
                for samples in ("100", "10000")
            )
            print(f"{observer:14} 100: {few:7.1f} MiB   10,000: {many:7.1f} MiB   ratio {many / few:.3f}")


def _peak_mib(folder: str, observer: str, samples: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", RUN, folder, observer, samples], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(done.stderr)
    return int(done.stdout.split()[-1]) / 1024


if __name__ == "__main__":
    main()
