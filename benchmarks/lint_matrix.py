"""The lint beside the real runtimes: what it says of every graph of its corpus, and what they do with it.

    python benchmarks/lint_matrix.py             # a Markdown table; TensorRT-RTX where it is installed
    python benchmarks/lint_matrix.py --speed     # seconds of a lint of an int8 graph of ResNet-50's size

The corpus and its judges are those of the tests (``tests/backends/lint_corpus.py``, ``lint_truth.py``).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "backends")]

import lint_truth  # noqa: E402
from lint_corpus import CASES, SYM, U0, U128  # noqa: E402
from lint_nets import Net  # noqa: E402
from lint_runtimes import RUNTIMES  # noqa: E402

from edgeopt.backends.graphs import read_graph  # noqa: E402
from edgeopt.backends.lint import lint, rules_of  # noqa: E402

WRONG = 0.02  # of the outputs' reach, as in the tests
SIDES = ("onnxruntime", "openvino", "tensorrt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed", action="store_true", help="time the lint of a ResNet-50-sized graph instead")
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    speed(args.runs) if args.speed else matrix()


def matrix() -> None:
    """One row per graph: the lint's verdict and the runtime's, for each runtime."""
    rtx = lint_truth.judge_tensorrt_rtx({n: make() for n, make in CASES.items()}) if find_spec("tensorrt_rtx") else {}
    heads = ("ONNX Runtime (x86-vnni)", "OpenVINO", "TensorRT (RTX as its proxy)")
    print("| graph | " + " | ".join(f"lint | {head}" for head in heads) + " |")
    print("|---" * 7 + "|")
    false_ok = dict.fromkeys(SIDES, 0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for case in sorted(CASES):
            cells = []
            for side in SIDES:
                said = verdict(case, side, folder)
                judged = judge(case, side, folder, rtx)
                done = "not here" if judged is None else outcome(judged)
                false_ok[side] += said == "ok" and done.startswith(("refused", "wrong"))
                cells += [said, done]
            print(f"| {case} | " + " | ".join(cells) + " |", flush=True)
    print(f"\n{len(CASES)} graphs. False ok: " + ", ".join(f"{side} {count}" for side, count in false_ok.items()) + ".")


def verdict(case: str, side: str, folder: Path) -> str:
    path = folder / "graph.onnx"
    onnx.save(CASES[case](), path)
    rules, target = RUNTIMES[side]
    found = [f for f in lint(read_graph(path), rules, target) if f.severity != "note"]
    kinds = rules_of(rules.name)
    words = sorted({f"{f.severity if f.severity == 'error' else kinds[f.rule].effect} {f.rule}" for f in found})
    return ", ".join(words) or "ok"


def judge(case: str, side: str, folder: Path, rtx: dict) -> lint_truth.Judgement | None:
    if side == "tensorrt":
        return rtx.get(case)
    judges = {"onnxruntime": lint_truth.judge_onnxruntime, "openvino": lint_truth.judge_openvino}
    return judges[side](CASES[case](), folder) if find_spec(side) else None


def outcome(judged: lint_truth.Judgement) -> str:
    if judged.refused is not None:
        return "refused"
    if not judged.wrong <= WRONG:
        return f"wrong by {100 * judged.wrong:.0f} %" if np.isfinite(judged.wrong) else "wrong"
    return f"float: {', '.join(sorted(judged.in_float))}" if judged.in_float else "ok"


def speed(runs: int) -> None:
    """Write an int8 ResNet-50 with random weights, and time everything after imports: reading, rules, checker."""
    net = resnet50()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "resnet50.onnx"
        onnx.save(net, path)
        size = path.stat().st_size / 2**20
        print(f"{len(net.graph.node)} nodes, {size:.0f} MiB, {runs} runs; median of process CPU seconds (and wall):")
        for side, (rules, target) in RUNTIMES.items():
            cpu, wall, count = [], [], 0
            for _ in range(runs):
                begun = time.process_time(), time.perf_counter()
                count = len(lint(read_graph(path), rules, target))
                cpu.append(time.process_time() - begun[0])
                wall.append(time.perf_counter() - begun[1])
            print(f"{side}: {np.median(cpu):.2f} ({np.median(wall):.2f}), {count} findings")


def resnet50() -> onnx.ModelProto:
    """ResNet-50's shape, quantized as ``ort-x86`` writes it; 25.5 million weights."""
    net = Net(opset=20)
    value = net.q(net.input(shape=("batch", 3, 224, 224)), "x0", **U128)
    value = _conv(net, value, "stem", 3, 64, 7, 2)
    value = net.q(net.op("MaxPool", [value], "pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4), "pq", **U0)
    width = 64
    for stage, (blocks, inner) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512))):
        for block in range(blocks):
            name, stride = f"s{stage}b{block}", 2 if stage and not block else 1
            skip = value if block else _conv(net, value, f"{name}d", width, inner * 4, 1, stride, relu=False)
            made = _conv(net, value, f"{name}c1", width, inner, 1, 1)
            made = _conv(net, made, f"{name}c2", inner, inner, 3, stride)
            made = _conv(net, made, f"{name}c3", inner, inner * 4, 1, 1, relu=False)
            added = net.op("Relu", [net.op("Add", [made, skip], f"{name}a")], f"{name}r")
            value, width = net.q(added, f"{name}q", **U0), inner * 4
    value = net.q(net.op("GlobalAveragePool", [value], "gap"), "gq", **U0)
    flat = net.op("Reshape", [value, net.const("shape", np.array([0, -1]))], "flat")
    net.linear(flat, "fc", cin=2048, cout=1000, bias="int32", step=0.05)
    return net.model("fc")


def _conv(net, source, name, cin, cout, kernel, stride, *, relu=True):  # noqa: PLR0917, ANN001, ANN202 - one line per layer
    made = net.conv(source, name, cin=cin, cout=cout, kernel=kernel, bias="int32", step=0.05, strides=[stride] * 2)
    grid = U0 if relu else U128
    return net.q(net.op("Relu", [made], f"{name}_relu") if relu else made, f"{name}_out", **(SYM | grid))


if __name__ == "__main__":
    main()
