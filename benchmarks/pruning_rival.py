"""torch-pruning on one net, at so many multiply-accumulates. Runs in an environment of its own and knows no edgeopt.

python benchmarks/pruning_rival.py JOB.json

The job names the net of ``zoo/nets.py`` and its trained ``model``, the ``samples`` (.npz: x, y) of the Taylor importance,
``macs`` and their ``tolerance``, ``importance``, ``round_to`` (null: none) and where ``pruned`` and ``report`` go.
"""

from __future__ import annotations

import copy
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch_pruning as tp
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its name everywhere

_MOST = 0.9  # of a layer's channels may go: edgeopt's floor, for both
_BATCH = 32  # samples per gradient, as edgeopt takes them
_STEPS = 14  # of bisection


def main() -> None:
    """Search the ratio, export what it leaves, and say what it is."""
    sys.path.insert(0, str(Path(__file__).parent / "zoo"))
    from nets import NETS  # noqa: PLC0415 - beside this file, in an environment that has no package

    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(1)
    torch.manual_seed(job["seed"])
    model = NETS[job["net"]]()
    model.load_state_dict(torch.export.load(job["model"]).state_dict)
    model.eval()
    with np.load(job["samples"]) as arrays:
        x, y = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"])
    if job["importance"] == "taylor":
        for rows in torch.arange(len(x)).split(_BATCH):
            F.cross_entropy(model(x[rows]), y[rows]).backward()
    ratio, pruned = search(model, x[:1], job)
    for parameter in pruned.parameters():
        parameter.grad = None
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(pruned.eval(), (x[:4].clone(),), dynamic_shapes=({0: batch},))
    torch.export.save(program, job["pruned"])
    report = {"ratio": ratio, "macs": macs(pruned, x[:1]), "version": version("torch-pruning")}
    Path(job["report"]).write_text(json.dumps(report), encoding="utf-8")


def search(model: nn.Module, sample: torch.Tensor, job: dict[str, Any]) -> tuple[float, nn.Module]:
    """The pruning ratio whose MACs are closest to those wanted, and no further below them than the tolerance."""
    low, high = 0.0, 1.0
    tried: list[tuple[float, float, nn.Module]] = []
    for _ in range(_STEPS):
        ratio = (low + high) / 2
        pruned = prune(model, sample, job, ratio)
        left = macs(pruned, sample) / job["macs"]
        tried.append((left, ratio, pruned))
        low, high = (ratio, high) if left > 1 else (low, ratio)
    _, ratio, pruned = min((one for one in tried if one[0] >= 1 - job["tolerance"]), key=lambda one: abs(one[0] - 1))
    return ratio, pruned


def prune(model: nn.Module, sample: torch.Tensor, job: dict[str, Any], ratio: float) -> nn.Module:
    """One step of global pruning, as the project's documentation has it; the classifier is left alone."""
    grads = [parameter.grad for parameter in model.parameters()]
    pruned = copy.deepcopy(model)
    for parameter, grad in zip(pruned.parameters(), grads, strict=True):
        parameter.grad = None if grad is None else grad.clone()  # a copy has none of its own
    scorer = tp.importance
    importance = (
        scorer.GroupTaylorImportance() if job["importance"] == "taylor" else scorer.GroupMagnitudeImportance(p=2)
    )
    pruner = tp.pruner.MetaPruner(
        pruned,
        sample,
        importance=importance,
        global_pruning=True,
        pruning_ratio=ratio,
        max_pruning_ratio=_MOST,
        round_to=job["round_to"],
        ignored_layers=[layer for layer in pruned.modules() if isinstance(layer, nn.Linear)],
    )
    pruner.step()
    return pruned


def macs(model: nn.Module, sample: torch.Tensor) -> int:
    """Multiply-accumulates of convolutions and linear layers for one sample."""
    total = 0

    def count(layer: Any, _: Any, output: torch.Tensor) -> None:
        nonlocal total
        total += output[0].numel() * layer.weight[0].numel()

    layers = [layer for layer in model.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        model(sample)
    for hook in hooks:
        hook.remove()
    return total


if __name__ == "__main__":
    main()
