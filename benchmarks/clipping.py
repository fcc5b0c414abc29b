"""How much more clipping weighs than rounding, by what the runtimes then keep: SQNR on the tuning splits of a zoo.

    python benchmarks/zoo/train.py build/zoo
    python benchmarks/clipping.py build/zoo --weights 1 4 8 16 32

Each net is quantized as the recipe int8-ptq does, with the histogram observer's ``CLIPPED`` at each weight in turn, written
in the form of each runtime, and its outputs there are compared with FP32's. Prints a table in Markdown, decibels. Nothing
is timed.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from zoo_folder import Net, add_arguments, find_nets

from edgeopt.backends.registry import BACKENDS
from edgeopt.compress import ranges
from edgeopt.compress.base import StepContext
from edgeopt.compress.quantize import QuantizeStep
from edgeopt.data.load import load_data
from edgeopt.graph.dialects import apply_dialect
from edgeopt.graph.export import export_onnx
from edgeopt.graph.parity import sqnr_db
from edgeopt.model.load import load_model
from edgeopt.pipeline.serve import run_in_batches
from edgeopt.recipes.load import load_recipe
from edgeopt.recipes.schema import Quantize
from edgeopt.targets.load import find_target

FORMS = {"onnxruntime": "ort-x86", "openvino": "openvino"}
TARGET = find_target("local")
BEST_RANGE = ranges.best_range


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--weights", nargs="+", type=float, default=[1, 4, 6, 8, 10, 16, 32])
    parser.add_argument("--calibration-samples", nargs="+", type=int, default=[300, 500])
    parser.add_argument("--samples", type=int, default=1000, help="of the tuning split")
    arguments = parser.parse_args()
    head = ["net, calibration samples", "runtime", *(f"{weight:g}" for weight in arguments.weights)]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    rows = []
    for net in find_nets(arguments.zoo, arguments.nets):
        for count in arguments.calibration_samples:
            found = [sqnr(net, weight, count, arguments.samples) for weight in arguments.weights]
            for runtime in FORMS:
                rows.append([one[runtime] for one in found])
                cells = [f"{net.name}, {count}", runtime, *(f"{value:.1f}" for value in rows[-1])]
                print(f"| {' | '.join(cells)} |", flush=True)
    print(f"| mean |  | {' | '.join(f'{value:.1f}' for value in np.mean(rows, axis=0))} |")


def sqnr(net: Net, weight: float, count: int, samples: int) -> dict[str, float]:
    """Decibels by runtime, with clipping at that weight and that many samples of calibration."""
    ranges.best_range = lambda histogram, _, ends: BEST_RANGE(histogram, weight, ends)
    model = load_model(net.model)
    data = load_data(net.data, inputs=model.inputs, outputs=model.outputs)
    config = load_recipe("int8-ptq", [f"steps.quantize.calibration_samples={count}"]).step(Quantize)
    made = QuantizeStep().run(model, config, StepContext(data=data, target=TARGET, seed=0, progress=lambda _: None))
    tune = data.splits["tune"]
    x = np.concatenate([batch.inputs[0] for batch in tune.first(min(samples, len(tune))).batches(50)])
    with tempfile.TemporaryDirectory() as scratch:
        plain, neutral = Path(scratch) / "float.onnx", Path(scratch) / "int8.onnx"
        export_onnx(model.program, model.inputs, model.outputs, plain, opset=TARGET.opset)
        export_onnx(made.model.program, model.inputs, model.outputs, neutral, opset=TARGET.opset, ranges=made.ranges)
        reference = outputs(plain, "onnxruntime", x)
        return {
            runtime: sqnr_db(
                reference, outputs(apply_dialect(form, neutral, plain.with_name(f"{form}.onnx")).path, runtime, x)
            )
            for runtime, form in FORMS.items()
        }


def outputs(graph: Path, runtime: str, x: np.ndarray) -> np.ndarray:
    """The first output of ``graph`` for every row of ``x``, compiled as edgeopt does."""
    rules = next(rules for rules in TARGET.runtimes if rules.name == runtime)
    directory = graph.with_suffix(f".{runtime}")
    directory.mkdir()
    engine = BACKENDS[runtime].compile(graph, TARGET, rules, directory, 1)
    with BACKENDS[runtime].load(engine, 1) as runner:
        return run_in_batches(runner, engine, {engine.inputs[0].name: x})[engine.outputs[0].name]


if __name__ == "__main__":
    main()
