"""Where post-training quantization fails and training on the grid does not: weights of 4 bits, and of {-1, 0, 1}.

    python benchmarks/qat_needed.py MODEL.pt2 DATA [--bits 4 2] [--epochs 10] [--rate 1e-3]

DATA has a train split. For each width, post-training quantization and quantization-aware training with the options of
the recipe int8-qat: accuracy on all test samples before conversion (fake-quantized, torch), after it (integer weights,
torch), of the portable ONNX graph as written, and of each runtime's own form of it. Weights of b bits have the integers
from -(2^(b-1) - 1) to 2^(b-1) - 1, per output channel, in every layer, the first and the last too; activations 8 bits.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

from edgeopt.backends.registry import BACKENDS
from edgeopt.compress.base import StepContext, StepResult
from edgeopt.compress.finish import finish
from edgeopt.compress.prepare import Session, open_session, prepare
from edgeopt.compress.qat import finish_qat, start_qat
from edgeopt.compress.training.loop import train
from edgeopt.core.events import Progress
from edgeopt.data.contract import Dataset
from edgeopt.data.load import load_data
from edgeopt.graph.dialects import apply_dialect
from edgeopt.graph.export import export_onnx
from edgeopt.model.load import load_model
from edgeopt.model.trained import TrainedModel
from edgeopt.pipeline.host import run_onnx
from edgeopt.recipes.load import load_recipe
from edgeopt.recipes.schema import Qat
from edgeopt.targets.load import find_target

BATCH = 50
Scores = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data")
    parser.add_argument("--bits", type=int, nargs="+", default=[4, 2])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--target", default="local")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    rate = [f"steps.qat.training.epochs={arguments.epochs}", f"steps.qat.training.learning_rate={arguments.rate}"]
    config = load_recipe("int8-qat", [*rate, *arguments.overrides]).step(Qat)
    model = load_model(arguments.model)
    data = load_data(arguments.data, inputs=model.inputs, outputs=model.outputs)
    context = StepContext(data=data, target=find_target(arguments.target), seed=0, progress=said)
    samples = len(data.splits["test"])
    print(f"{model.name}: accuracy in %, {samples} test samples; {len(data.splits['train'])} training samples")
    program = model.program.module()
    print(f"FP32 in torch {accuracy(data, lambda x: program(torch.from_numpy(x)).detach().numpy()):.2f}")
    for bits in arguments.bits:
        for kind, row in ((name, run(model, config, context, bits)) for name, run in (("PTQ", ptq), ("QAT", qat))):
            figures = "; ".join(f"{where} {value:.2f}" for where, value in row)
            print(f"{bits} bits, {kind}: {figures}", flush=True)


def ptq(model: TrainedModel, config: Qat, context: StepContext, bits: int) -> Iterator[tuple[str, float]]:
    with torch.no_grad():
        session = few_bits(open_session(model, config, context), bits)
        prepared, samples = prepare(session)
        result = finish(session, convert_pt2e(prepared, fold_quantize=False), samples)
    yield from shipped(result, context)


def qat(model: TrainedModel, config: Qat, context: StepContext, bits: int) -> Iterator[tuple[str, float]]:
    torch.manual_seed(0)
    with torch.no_grad():
        run = start_qat(few_bits(open_session(model, config, context), bits), config)
        outcome = train(run.job, context.progress)
        before = accuracy(context.data, lambda x: run.job.student(torch.from_numpy(x))[0].numpy())
        yield f"before convert (epoch {outcome.best_epoch} of {len(outcome.curve) - 1})", before
        result = finish_qat(run, outcome)
    yield from shipped(result, context)


def shipped(result: StepResult, context: StepContext) -> Iterator[tuple[str, float]]:
    model, data = result.model, context.data
    program = model.program.module()
    with torch.no_grad():
        yield "after convert", accuracy(data, lambda x: program(torch.from_numpy(x)).detach().numpy())
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.onnx"
        export_onnx(model.program, model.inputs, model.outputs, path, opset=20, ranges=result.ranges)
        name = model.inputs[0].name
        yield "ONNX as written", accuracy(data, lambda x: next(iter(run_onnx(path, {name: x}).values())))
        for rules in context.target.runtimes:
            if BACKENDS[rules.name].available().version is None:
                continue
            written = apply_dialect(rules.dialect, path, Path(scratch) / f"{rules.name}.onnx").path
            folder = Path(scratch) / rules.name
            folder.mkdir()
            engine = BACKENDS[rules.name].compile(written, context.target, rules, folder, BATCH)
            with BACKENDS[rules.name].load(engine, 1) as runner:
                yield rules.name, accuracy(data, lambda x: next(iter(runner.infer({name: x}).values())))


def few_bits(session: Session, bits: int) -> Session:
    layers = tuple(dataclasses.replace(x, weight_bits=bits) if x.weighted else x for x in session.layers)
    return dataclasses.replace(session, layers=layers)


def accuracy(data: Dataset, scores: Scores) -> float:
    right = total = 0
    for batch in data.splits["test"].batches(BATCH):
        x, count = batch.inputs[0], len(batch.inputs[0])
        full = np.concatenate([x, np.repeat(x[-1:], BATCH - count, axis=0)])
        right += int((scores(full)[:count].argmax(-1) == batch.targets).sum())
        total += count
    return 100 * right / total


def said(progress: Progress) -> Any:
    """One line that is written over."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{progress.stage}: {progress.done}/{progress.total}")


if __name__ == "__main__":
    main()
