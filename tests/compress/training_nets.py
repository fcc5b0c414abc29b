"""Labelled data sets with a train split, recipes' options for a training of seconds, and the steps that train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from compress_nets import NETS, Arrays, export, make_config, make_context, samples, seeded
from torch import nn

from edgeopt.compress.base import StepResult
from edgeopt.compress.registry import STEPS
from edgeopt.data.contract import Batch, Dataset, Split
from edgeopt.recipes.schema import Finetune, Qat

TRAINING = {
    "epochs": 2,
    "batch_size": 32,
    "optimizer": "adamw",
    "learning_rate": 1e-3,
    "warmup_epochs": 0.5,
    "schedule": "cosine",
    "weight_decay": 0.0,
    "clip_norm": 1.0,
    "loss": "task",
    "distillation": {"weight": 0.5, "temperature": 2.0},
    "precision": "32-true",
    "patience": None,
}


class Labelled(Arrays):
    """Arrays with labels."""

    def __init__(self, x: np.ndarray, labels: np.ndarray | None):
        super().__init__(x)
        self.labels = labels

    def read(self, indices):
        batch = super().read(indices)
        return Batch(inputs=batch.inputs, targets=None if self.labels is None else self.labels[np.asarray(indices)])


def split(name: str, x: np.ndarray, labels: np.ndarray | None) -> Split:
    return Split(name=name, source=Labelled(x, labels), indices=np.arange(len(x)), how="given", fingerprint=name)


def training_data(net: nn.Module, shape: Sequence[int], count: int = 128, *, labelled: bool = True) -> Dataset:
    """Random inputs, labelled with the argmax of what the net itself says, less its mean: all classes occur."""
    splits = {}
    for seed, (name, size) in enumerate({"train": count, "calibration": 64, "tune": 64}.items(), 5):
        x = samples(size, shape, seed=seed)
        with torch.no_grad():
            scores = net(torch.from_numpy(x)).numpy()
        splits[name] = split(name, x, (scores - scores.mean(0)).argmax(1) if labelled else None)
    task = "classification" if labelled else "unlabelled"
    return Dataset(name="arrays", task=task, splits=splits, fingerprint="f" * 64)


def make_qat(**options: Any) -> Qat:
    training = TRAINING | options.pop("training", {})
    base = make_config(**{"calibration_samples": 64, **{k: options.pop(k) for k in ("skip", "assign") if k in options}})
    settings = {"scales": "learned", "batchnorm": "frozen", **options, "training": training}
    return Qat.model_validate(base.model_dump() | settings)


def make_finetune(**options: Any) -> Finetune:
    training = TRAINING | options.pop("training", {})
    return Finetune.model_validate({"batchnorm": "frozen", **options, "training": training})


def net_of(name: str, batch: int | None = None):
    """The model of that name as the steps take it, its module, and its input's shape."""
    kind, shape = NETS[name]
    net = seeded(kind, shape)
    return export(net, shape, batch=batch, name=name), net, shape


def run_qat(
    name: str, *, batch: int | None = None, count: int = 128, context: dict | None = None, **options: Any
) -> StepResult:
    model, net, shape = net_of(name, batch)
    return STEPS["qat"].run(
        model, make_qat(**options), make_context(training_data(net, shape, count), **(context or {}))
    )


def weights_of(result: StepResult) -> dict[str, torch.Tensor]:
    """Everything that the returned program computes with: its tensors, and the scales in its graph."""
    program = result.model.program
    tensors = {**program.state_dict, **{k: v for k, v in program.constants.items() if isinstance(v, torch.Tensor)}}
    scales = [
        torch.tensor(float(node.args[1]), dtype=torch.float64)
        for node in program.graph.nodes
        if "quantize_per_tensor" in str(node.target) and isinstance(node.args[1], float)
    ]
    return tensors | {f"scale {index}": scale for index, scale in enumerate(scales)}
