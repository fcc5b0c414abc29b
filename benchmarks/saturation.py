"""What saturates on a CPU without VNNI, what a repair per channel costs, and whether the emulated CPU agrees.

    python benchmarks/zoo/train.py build/zoo resnet20 mobilenetv2
    python benchmarks/saturation.py build/zoo --samples 200 --json build/saturation.json

Each net, and one of our own whose weights and inputs are as bad as they come, is quantized with 8-bit weights, with 7-bit
weights (what ``reduce_range`` means), with 8 bits and a wider step where a channel asks for it (target x86-avx2), and with
8 bits repaired in the finished graph alone. Every file runs here and under ``qemu-x86_64 -cpu Haswell``; a CPU with VNNI
never saturates. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from zoo_folder import add_arguments, find_nets, use_own_cache

from edgeopt.compress.base import StepContext
from edgeopt.compress.registry import STEPS
from edgeopt.core.events import ignore_progress
from edgeopt.core.spec import TensorSpec
from edgeopt.data.contract import Batch, Dataset, Split
from edgeopt.data.load import load_data
from edgeopt.graph.dialects import apply_dialect
from edgeopt.graph.export import export_onnx
from edgeopt.graph.parity import sqnr_db
from edgeopt.graph.saturation import prove
from edgeopt.model.load import load_model
from edgeopt.model.trained import TrainedModel
from edgeopt.recipes.schema import Quantize
from edgeopt.targets.load import find_target
from edgeopt.targets.schema import Target

HERE = Path(__file__).parent
EMULATOR = "qemu-x86_64"
WAYS: Mapping[str, tuple[dict[str, object], str]] = {  # name → the target's rules, the dialect
    "8 bits": ({"weight_bits": 8, "saturation": "none"}, "ort-x86"),
    "7 bits": ({"weight_bits": 7, "saturation": "none"}, "ort-x86-novnni"),
    "repaired": ({"weight_bits": 8, "saturation": "repair"}, "ort-x86-novnni"),
    "repaired in the graph": ({"weight_bits": 8, "saturation": "none"}, "ort-x86-novnni"),
}
HEAD = (
    *("net", "weights", "channels that could overflow", "of", "repaired", "proof, s"),
    *(
        "SQNR here, dB",
        "SQNR Haswell, dB",
        "top-1 here, %",
        "top-1 Haswell, %",
        "Haswell − here: max, quanta",
        "> 1, %",
    ),
)
NOTES = """\
SQNR: of the scores, against FP32 here. A quantum: the step of a symmetric int8 grid that just holds FP32's scores, max
|score| / 127. Repaired: channels whose step the target's rule or the dialect made wider.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One net with one kind of weights. None: not run, or without labels."""

    net: str
    weights: str
    overflowing: int
    channels: int
    repaired: int
    prove_s: float
    sqnr_here_db: float | None
    sqnr_there_db: float | None
    top1_here_pct: float | None
    top1_there_pct: float | None
    apart_max_quanta: float | None
    apart_over_pct: float | None
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Net:
    """A net with data to calibrate and to test on; ``labels`` None where there are none."""

    model: TrainedModel
    data: Dataset
    samples: np.ndarray
    labels: np.ndarray | None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_arguments(parser)
    parser.add_argument("--samples", type=int, default=100, metavar="N", help="test samples (default: 100)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures")
    arguments = parser.parse_args()
    use_own_cache(arguments.zoo)
    if shutil.which(EMULATOR) is None:
        print(f"There is no {EMULATOR} (Debian: qemu-user): nothing is run as a CPU without VNNI.", file=sys.stderr)
    nets = {net.name: (net.model, net.data) for net in find_nets(arguments.zoo, arguments.nets)}
    rows: list[Row] = []
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for name in (*nets, "adversarial"):
        net = trained(*nets[name], arguments.samples) if name in nets else adversarial(arguments.samples)
        for row in rows_of(name, net):
            rows.append(row)
            print(line(row), flush=True)
    print(f"\n{NOTES}")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1), encoding="utf-8")
    return 0


def rows_of(name: str, net: Net) -> Iterator[Row]:
    """One row per kind of weights."""
    with tempfile.TemporaryDirectory(prefix="edgeopt-saturation-") as scratch:
        folder = Path(scratch)
        float_path = folder / "float.onnx"
        export_onnx(net.model.program, net.model.inputs, net.model.outputs, float_path, opset=20)  # type: ignore[arg-type]
        fp32 = run(float_path, net.samples, folder)
        for ways, (rules, dialect) in WAYS.items():
            path, repaired = quantized(net, rules, dialect, folder)
            begun = time.perf_counter()
            verdict = prove(path)
            seconds = time.perf_counter() - begun
            here = run(path, net.samples, folder)
            there = run(path, net.samples, folder, [EMULATOR, "-cpu", "Haswell"]) if shutil.which(EMULATOR) else None
            apart = None if there is None else np.abs(there.astype(np.float64) - here) / (np.abs(fp32).max() / 127)
            yield Row(
                net=name,
                weights=ways,
                overflowing=verdict.overflowing,
                channels=verdict.channels,
                repaired=repaired,
                prove_s=seconds,
                sqnr_here_db=sqnr_db(fp32, here),
                sqnr_there_db=None if there is None else sqnr_db(fp32, there),
                top1_here_pct=top1(here, net.labels),
                top1_there_pct=None if there is None else top1(there, net.labels),
                apart_max_quanta=None if apart is None else float(apart.max()),
                apart_over_pct=None if apart is None else float(100 * (apart > 1).mean()),
                samples=len(net.samples),
            )


def quantized(net: Net, rules: dict[str, object], dialect: str, folder: Path) -> tuple[Path, int]:
    """The net in int8, in a dialect; and how many channels got a wider step on the way."""
    avx2 = find_target("x86-avx2")
    assert avx2.quantization is not None
    content = avx2.model_dump() | {"quantization": avx2.quantization.model_dump() | rules}
    target = Target.model_validate(content)
    config = Quantize(precision="int8", observer="histogram", bias_correction=False, calibration_samples=256)
    context = StepContext(data=net.data, target=target, seed=0, progress=ignore_progress)
    result = STEPS["quantize"].run(net.model, config, context)
    neutral, path = folder / "neutral.onnx", folder / "dialect.onnx"
    export_onnx(
        result.model.program,  # type: ignore[arg-type]
        net.model.inputs,
        net.model.outputs,
        neutral,
        opset=20,
        ranges=result.ranges,
    )
    written = apply_dialect(dialect, neutral, path)
    return path, int(result.stats.get("channels_repaired", 0)) + written.repaired


def run(path: Path, samples: np.ndarray, folder: Path, emulator: list[str] | None = None) -> np.ndarray:
    """The scores, [N, classes], from a process of its own."""
    inputs, outputs = folder / "samples.npy", folder / "outputs.npy"
    np.save(inputs, samples)
    subprocess.run(
        [*(emulator or []), sys.executable, str(HERE / "run_onnx.py"), str(path), str(inputs), str(outputs)],
        check=True,
        stderr=subprocess.DEVNULL if emulator else None,  # the emulator names every CPU feature that it leaves out
    )
    scores: np.ndarray = np.load(outputs)
    return scores


def trained(model: Path, data: Path, samples: int) -> Net:
    """A net of the zoo."""
    loaded = load_model(model)
    dataset = load_data(str(data), inputs=loaded.inputs, outputs=loaded.outputs)
    batch = next(dataset.splits["test"].batches(samples, samples))
    return Net(model=loaded, data=dataset, samples=batch.inputs[0], labels=batch.targets)


class _Arrays:
    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def read(self, indices: object) -> Batch:
        return Batch(inputs=(self.array[np.asarray(indices)],), targets=None)


def adversarial(samples: int) -> Net:
    """Weights of one sign and bright inputs: nearly every pair of products is beyond 16 bits."""
    random = np.random.default_rng(0)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        net = torch.nn.Sequential(
            *(torch.nn.Conv2d(8, 32, 3), torch.nn.ReLU(), torch.nn.Conv2d(32, 32, 3), torch.nn.ReLU()),
            *(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(32, 10)),
        ).eval()
        for layer in net:
            if isinstance(layer, torch.nn.Conv2d):
                layer.weight.copy_(layer.weight.abs() * 0.5 + 0.02)
    spec = TensorSpec(name="x", dtype="float32", shape=("batch", 8, 16, 16))
    example = torch.zeros(2, 8, 16, 16)
    program = torch.export.export(net, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    model = TrainedModel(
        name="adversarial",
        program=program,
        onnx_path=None,
        inputs=(spec,),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("batch", 10)),),
        source=None,
        format="module",
        sha256="0" * 64,
        identity="adversarial",
        parameters=sum(p.numel() for p in net.parameters()),
    )
    x = random.uniform(0.5, 1.0, (256 + samples, 8, 16, 16)).astype(np.float32)
    split = Split(
        name="calibration", source=_Arrays(x[:256]), indices=np.arange(256), how="given", fingerprint="f" * 64
    )
    data = Dataset(name="bright", task="unlabelled", splits={"calibration": split}, fingerprint="f" * 64)
    return Net(model=model, data=data, samples=x[256:], labels=None)


def top1(scores: np.ndarray, labels: np.ndarray | None) -> float | None:
    """Share of right predictions, in percent."""
    return None if labels is None else float(100 * (scores.argmax(1) == labels).mean())


def line(row: Row) -> str:
    """A row of the table in Markdown."""
    figures = [row.sqnr_here_db, row.sqnr_there_db, row.top1_here_pct, row.top1_there_pct, row.apart_max_quanta]
    texts = ["–" if figure is None else f"{figure:.2f}" for figure in (*figures, row.apart_over_pct)]
    cells = [row.net, row.weights, row.overflowing, row.channels, row.repaired, f"{row.prove_s:.2f}", *texts]
    return f"| {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    sys.exit(main())
