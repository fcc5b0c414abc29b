"""What ``pruning.py`` has done in processes of their own, one thread each: prune, recover, quantize, write ONNX.

python benchmarks/pruning/work.py JOB.json
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgeopt.compress.base import StepContext
from edgeopt.compress.pruning.channels import trace_channels
from edgeopt.compress.registry import STEPS
from edgeopt.core.events import ignore_progress
from edgeopt.core.fingerprint import hash_json
from edgeopt.data.contract import Dataset
from edgeopt.data.load import load_data
from edgeopt.graph.export import export_onnx
from edgeopt.model.load import load_model
from edgeopt.model.trained import TrainedModel, count_parameters
from edgeopt.recipes.load import load_recipe
from edgeopt.recipes.schema import Distil, Prune, Quantize
from edgeopt.targets.load import find_target

SAMPLES = 1024  # that the Taylor importance reads: edgeopt's default
_BATCH = 250


def main() -> None:
    """Do one job; its report is written last, so that what is there is whole."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    folder = Path(job["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    made = {"prune": prune, "recover": recover, "original": original}[job["do"]](job, folder)
    partial = folder / f"{job['do']}.partial"
    partial.write_text(json.dumps(made, indent=1), encoding="utf-8")
    partial.rename(folder / f"{job['do']}.json")


def prune(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Prune by the step of edgeopt; also the samples that it read, for the rival."""
    model, data = opened(job)
    config = Prune(
        importance="taylor",
        scope="global",
        round_to=job["round_to"] or "auto",  # what widths are given is not rounded
        samples=SAMPLES,
        **job["goal"],
    )
    made = STEPS["prune"].run(model, config, context(data, job)).model
    batch = next(data.splits["train"].batches(SAMPLES, SAMPLES))
    np.savez(folder / "samples.npz", x=batch.inputs[0], y=batch.targets)
    torch.export.save(made.program, folder / "pruned.pt2")
    whole = {"macs": trace_channels(model.program).macs({}), "parameters": model.parameters}
    return {**facts(made), "original": whole}


def recover(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Train what was pruned by the original, whoever pruned it."""
    teacher, data = opened(job)
    pruned = load_model(Path(job["pruned"]))
    config = Distil(batchnorm={"freeze_after": job["training"]["epochs"]}, training=job["training"])
    step = dataclasses.replace(context(data, job), original=teacher, workspace=folder / "training")
    (folder / "training").mkdir(exist_ok=True)
    result = STEPS["distil"].run(pruned, config, step)
    torch.export.save(result.model.program, folder / "recovered.pt2")
    shutil.rmtree(folder / "training")
    write_forms(result.model, data, job, folder)
    return {
        **facts(pruned),
        "accuracy_pruned": accuracy(pruned, data),
        "accuracy_recovered": accuracy(result.model, data),
        "test_samples": len(data.splits["test"]),
        "training": dict(result.stats),
    }


def original(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What the others are held against."""
    model, data = opened(job)
    write_forms(model, data, job, folder)
    return {**facts(model), "accuracy": accuracy(model, data)}


def write_forms(model: TrainedModel, data: Dataset, job: dict[str, Any], folder: Path) -> None:
    """FP32 and int8 as portable ONNX, int8 as the recipe int8-ptq makes it."""
    opset = find_target("local").opset
    export_onnx(model.program, model.inputs, model.outputs, folder / "fp32.onnx", opset=opset)
    quantize = load_recipe("int8-ptq").step(Quantize)
    made = STEPS["quantize"].run(model, quantize, context(data, job))
    path = folder / "int8.onnx"
    export_onnx(made.model.program, model.inputs, model.outputs, path, opset=opset, ranges=made.ranges)


def opened(job: dict[str, Any]) -> tuple[TrainedModel, Dataset]:
    """The original and its data; the train split in the seed's order, as much of it as the job says."""
    model = load_model(Path(job["model"]))
    data = load_data(Path(job["data"]), inputs=model.inputs, outputs=model.outputs)
    train = data.splits["train"]
    order = np.random.default_rng(job["seed"]).permutation(train.indices)[: job["train_samples"]]
    train = dataclasses.replace(
        train, indices=order, fingerprint=hash_json([train.fingerprint, job["seed"], len(order)])
    )
    return model, dataclasses.replace(data, splits={**data.splits, "train": train})


def context(data: Dataset, job: dict[str, Any]) -> StepContext:
    """Of every step."""
    return StepContext(data=data, target=find_target("local"), seed=job["seed"], progress=ignore_progress)


def facts(model: TrainedModel) -> dict[str, Any]:
    """Multiply-accumulates, parameters and widths, counted alike for whoever pruned it."""
    channels = trace_channels(model.program)
    widths = {group.name: group.units for group in channels.groups}
    return {"macs": channels.macs({}), "parameters": count_parameters(model.program), "widths": widths}


def accuracy(model: TrainedModel, data: Dataset) -> float:
    """In percent, on all test samples, in PyTorch."""
    run = model.program.module(check_guards=False)
    right = total = 0
    with torch.no_grad():
        for batch in data.splits["test"].batches(_BATCH):
            answers = run(torch.from_numpy(np.ascontiguousarray(batch.inputs[0]))).argmax(-1).numpy()
            right, total = right + int((answers == batch.targets).sum()), total + len(answers)
    return 100 * right / total


if __name__ == "__main__":
    main()
