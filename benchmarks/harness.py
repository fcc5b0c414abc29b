"""edgeopt's timing of an OpenVINO model against OpenVINO's own loop in C++, block by block, as a ratio.

python benchmarks/harness.py [MODEL.xml] [--threads 1] [--processes 6] [--rounds 20] [--block 50]

The loop (``harness/openvino_loop.cpp``) is compiled with g++ against the headers and libraries in OpenVINO's wheel. Both
sides read the same file and input, with the same properties; their outputs must be equal before anything is timed.
Without a model: a convolutional net with seeded weights. Two processes of the C++ loop are timed, the second as the noise
floor: a ratio of the harness is worth no more than what the loop makes of itself. Where a process's memory comes to lie
makes it some percent faster or slower for as long as it lives, so all three are started several times, and the interval
is over these (Student's t on the logarithms of the ratios of medians).
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import scipy.stats

from edgeopt.agent.runners.openvino import import_openvino
from edgeopt.core.engine import Engine
from edgeopt.devices.local import LocalDevice

SOURCE = Path(__file__).parent / "harness" / "openvino_loop.cpp"
LIMIT = 1.02
WARM, REWARM = 100, 2


class Loop:
    """One process of the C++ loop."""

    def __init__(self, program: Path, model: Path, threads: int, data: Path) -> None:
        command = [str(program), str(model), str(threads), str(data)]
        # A session of its own, as the agent has: the kernel shares CPUs out by session (autogroup).
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def ask(self, command: str) -> str:
        """Its answer to one command."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"The C++ loop died at {command!r}: exit code {self.process.wait()}.")
        return answer

    def time(self, n: int) -> list[int]:
        """Nanoseconds of ``n`` inferences."""
        self.ask(f"warm {REWARM}")
        return [int(ns) for ns in self.ask(f"time {n}").split()]

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def build(folder: Path) -> Path:
    """The program, compiled against the installed wheel."""
    compiler = shutil.which("g++")
    if compiler is None:
        raise SystemExit("g++ is not installed; the C++ loop cannot be built.")
    root = Path(import_openvino().__file__).parent
    library = next((root / "libs").glob("libopenvino.so*"))
    program = folder / "openvino_loop"
    include, found_at = f"-I{root / 'include'}", f"-Wl,-rpath,{root / 'libs'}"
    subprocess.run([compiler, "-O2", "-std=c++17", include, SOURCE, "-o", program, library, found_at], check=True)
    return program


def example(folder: Path) -> Path:
    """A net of six convolutions on 3 × 64 × 64, batch 1, about 30 million multiply-accumulates."""
    import torch  # noqa: PLC0415 - only where no model is given

    ov = import_openvino()
    torch.manual_seed(0)
    layers: list[torch.nn.Module] = []
    for inside, outside, stride in ((3, 32, 2), (32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1)):
        layers += [torch.nn.Conv2d(inside, outside, 3, stride, 1), torch.nn.ReLU()]
    net = torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(128, 10))
    model = ov.convert_model(net.eval(), example_input=torch.zeros(1, 3, 64, 64), input=[1, 3, 64, 64])
    model.inputs[0].get_tensor().set_names({"x"})
    model.outputs[0].get_tensor().set_names({"y"})
    ov.save_model(model, folder / "model.xml", compress_to_fp16=False)
    return folder / "model.xml"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", nargs="?", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--processes", type=int, default=6, help="how often all are started anew, 2 at least")
    parser.add_argument("--rounds", type=int, default=20, help="of blocks, per start")
    parser.add_argument("--block", type=int, default=50)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="edgeopt-harness-") as directory:
        folder = Path(directory)
        program, model = build(folder), chosen.model or example(folder)
        starts = [
            compare(folder, program, model.absolute(), threads=chosen.threads, rounds=chosen.rounds, block=chosen.block)
            for _ in range(max(chosen.processes, 2))
        ]
    n = chosen.rounds * chosen.block
    p50 = {side: float(np.median([start[side] for start in starts])) for side in starts[0]}
    print(f"C++ loop p50 {p50['c++']:.4f} ms, edgeopt's agent {p50['edgeopt']:.4f} ms")
    ratios = {f"{side} / C++": over(starts, side) for side in p50 if side != "c++"}
    for name, (value, low, high) in ratios.items():
        print(f"{name:<31} {value:.4f} [{low:.4f}, {high:.4f}], {len(starts)} processes, n = {n} each")
    _, low, high = ratios["c++ again / C++"]
    if max(high, 1 / low) > LIMIT:
        print(f"INCONCLUSIVE: the C++ loop differs from itself by more than {LIMIT - 1:.0%} on this machine now")
        return 5
    within = {name: ratio[2] <= LIMIT for name, ratio in ratios.items() if name.startswith("edgeopt")}
    for name, held in within.items():
        print(f"{name}: {'within' if held else 'NOT shown to be within'} {LIMIT - 1:.0%}")
    extra_us = (p50["edgeopt"] - p50["edgeopt, runtime's clock"]) * 1e3
    print(f"Python's share, the difference between the two: {extra_us:.1f} µs per inference")
    return 0 if within["edgeopt, runtime's clock / C++"] else 1


def compare(folder: Path, program: Path, model: Path, *, threads: int, rounds: int, block: int) -> dict[str, float]:
    """Median latencies, ms, of processes started for this, from blocks in turns, in an order drawn for each round."""
    engine = Engine(
        runtime="openvino",
        runtime_version="",
        directory=model.parent,
        entry=model.name,
        status="built",
        inputs=(),
        outputs=(),
    )
    rng = np.random.default_rng(0)
    with LocalDevice().open(engine, threads=threads) as session:
        loaded = session.request("load", runtime="openvino", entry=session.entry, options={}, threads=threads)
        if len(loaded["inputs"]) != 1:
            raise SystemExit("The C++ loop takes models of one input.")
        name, port = next(iter(loaded["inputs"].items()))
        shape = [n if isinstance(n, int) else 1 for n in port["shape"]]
        data = rng.normal(size=shape).astype(port["dtype"])
        np.savez(folder / "input.npz", **{name: data})
        (folder / "input.bin").write_bytes(data.tobytes())
        loops = [Loop(program, model, threads, folder / "input.bin") for _ in range(2)]
        given = session.put(folder / "input.npz")
        session.request("first", inputs=given)
        session.request("infer", inputs=given, outputs="out.npz", batch=shape[0])
        session.get("out.npz", folder / "out.npz")
        session.request("inputs", inputs=given, batch=shape[0])
        session.request("warm", n=WARM)
        for loop in loops:
            loop.ask(f"warm {WARM}")
        loops[0].ask(f"output {folder / 'out.bin'}")
        with np.load(folder / "out.npz") as archive:
            ours = archive[archive.files[0]]
        theirs = np.fromfile(folder / "out.bin", dtype=ours.dtype).reshape(ours.shape)
        if not np.array_equal(ours, theirs):
            raise SystemExit(f"The outputs differ by up to {np.abs(ours - theirs).max():g}: not the same computation.")

        blocks: dict[str, list[list[int]]] = {"edgeopt, runtime's clock": []}

        def agent(n: int) -> list[int]:
            session.request("warm", n=REWARM)
            taken = session.request("time", n=n)
            blocks["edgeopt, runtime's clock"].append(taken["runtime_ns"])
            latency: list[int] = taken["latency_ns"]
            return latency

        sides = {"edgeopt": agent, "c++": loops[0].time, "c++ again": loops[1].time}
        blocks |= {side: [] for side in sides}
        for _ in range(rounds):
            for side in rng.permutation(list(sides)):
                blocks[side].append(sides[side](block))
        for loop in loops:
            loop.close()
    return {side: float(np.median(np.concatenate(found))) / 1e6 for side, found in blocks.items()}


def over(starts: list[dict[str, float]], side: str) -> tuple[float, float, float]:
    """A side's time over the C++ loop's: geometric mean of the starts' ratios, and its 95 % interval."""
    logs = np.log([start[side] / start["c++"] for start in starts])
    interval = scipy.stats.ttest_1samp(logs, 0.0).confidence_interval(0.95)
    return float(np.exp(logs.mean())), float(np.exp(interval.low)), float(np.exp(interval.high))


if __name__ == "__main__":
    sys.exit(main())
