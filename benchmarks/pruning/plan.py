"""Which runs ``pruning.py`` makes, how, and where each keeps its results."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo_folder import Net

from edgeopt.core.fingerprint import hash_file, hash_json

__all__ = [
    "MACS",
    "REQUIREMENTS",
    "ROUND_TO",
    "SEARCHED",
    "TOLERANCE",
    "Run",
    "Way",
    "comparable",
    "list_ways",
    "original_of",
    "plan",
    "read",
    "times_of",
]

REQUIREMENTS = ("torch-pruning==1.6.1", "torch==2.13.0", "numpy==2.4.6")
MACS = {"resnet20": 1 / 2, "mobilenetv2": 1 / 1.5}
SEARCHED = {"resnet20": 0.62, "mobilenetv2": 0.75}  # of the unpruned's int8 latency, for the search
TOLERANCE = 0.02  # of edgeopt's multiply-accumulates
ROUND_TO = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to prune.

    Attributes:
        round_to: What widths are multiples of; None: anything.
        own: Whether it is edgeopt's.
        searched: Whether its multiply-accumulates are those of the widths that edgeopt's search by latency ended in.
    """

    name: str
    title: str
    importance: str
    round_to: int | None
    own: bool = False
    searched: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One net pruned in one way with one seed, and where its results are kept.

    Attributes:
        job: What every process that works on it is told.
        pruned: The folder of its pruned model; ``own``: of edgeopt's whose multiply-accumulates it has, with this seed.
        recovered: The folder of its recovered model.
    """

    net: Net
    way: Way
    seed: int
    job: Mapping[str, Any]
    own: Path
    pruned: Path
    recovered: Path

    @property
    def name(self) -> str:
        """As the log has it."""
        return f"{self.net.name}, {self.way.title}, seed {self.seed}"


def list_ways(multiple: int, *, searched: bool) -> list[Way]:
    """The ways of one table; first edgeopt's, as the others prune down to their multiply-accumulates.

    Args:
        multiple: What widths are multiples of.
        searched: Whether widths are known that a search by latency ended in. The rival has their multiply-accumulates
            too, in the widths that serve its accuracy best: any.
    """
    taylor = "taylor"
    ways = [
        Way(
            name=f"edgeopt-{multiple}",
            title=f"edgeopt Taylor, ×{multiple}",
            importance=taylor,
            round_to=multiple,
            own=True,
        )
    ]
    if searched:
        title = "edgeopt searched by latency"
        ways.append(
            Way(name="edgeopt-searched", title=title, importance=taylor, round_to=None, own=True, searched=True)
        )
    for round_to in (None, multiple):
        for importance in (taylor, "magnitude"):
            name = f"torch-pruning-{importance}" + ("" if round_to is None else f"-{round_to}")
            title = f"torch-pruning {importance.capitalize()}" + ("" if round_to is None else f", ×{round_to}")
            ways.append(Way(name=name, title=title, importance=importance, round_to=round_to))
    for importance in (taylor, "magnitude") if searched else ():
        name = f"torch-pruning-{importance}-searched"
        title = f"torch-pruning {importance.capitalize()}, at the search's MACs"
        ways.append(Way(name=name, title=title, importance=importance, round_to=None, searched=True))
    return ways


def plan(net: Net, way: Way, seed: int, arguments: argparse.Namespace, widths: Mapping[str, int] | None = None) -> Run:
    """Where a run's results are: what decides them is in the folders' names.

    Args:
        net: What is pruned.
        way: How.
        seed: Of the data's order, for importance and recovery.
        arguments: ``work``, ``epochs``, ``round_to`` and ``train_samples``.
        widths: Units that stay, by group, for a way that is searched.
    """
    sources = {"model": hash_file(net.model), "data": hash_file(net.data), "seed": seed}
    if way.searched:
        goal: dict[str, Any] = {"widths": dict(widths or {})}
        own, name = {**sources, **goal}, "edgeopt-searched"
    else:
        goal = {"macs_ratio": MACS[net.name]}
        own, name = {**sources, **goal, "round_to": arguments.round_to}, f"edgeopt-{arguments.round_to}"
    pruned = own if way.own else {**own, "importance": way.importance, "to": way.round_to, "requirements": REQUIREMENTS}
    training = settings(arguments.epochs)
    recovered = {**pruned, "training": training, "train_samples": arguments.train_samples}

    def folder(stage: str, name: str, key: Mapping[str, Any]) -> Path:
        return arguments.work / stage / f"{net.name}-{name}-seed{seed}-{hash_json(key)[:10]}"

    job = {
        "net": net.name,
        "model": str(net.model.absolute()),
        "data": str(net.data.absolute()),
        "seed": seed,
        "goal": goal,
        "round_to": way.round_to,
        "importance": way.importance,
        "training": training,
        "train_samples": arguments.train_samples,
    }
    return Run(
        net=net,
        way=way,
        seed=seed,
        job=job,
        own=folder("pruned", name, own),
        pruned=folder("pruned", way.name, pruned),
        recovered=folder("recovered", way.name, recovered),
    )


def settings(epochs: int) -> dict[str, Any]:
    """The recovery, the same for all."""
    return {
        "epochs": epochs,
        "batch_size": 64,
        "optimizer": "adamw",
        "learning_rate": 2e-3,
        "warmup_epochs": 0.5,
        "schedule": "cosine",
        "weight_decay": 0.01,
        "clip_norm": 1.0,
        "loss": "task",
        "distillation": {"weight": 0.9, "temperature": 4.0},
        "precision": "32-true",
        "patience": None,
    }


def comparable(run: Run) -> bool:
    """Whether its multiply-accumulates are edgeopt's, as far as the tolerance goes."""
    share = read(run.pruned / "prune.json")["macs"] / read(run.own / "prune.json")["macs"]
    return abs(share - 1) <= TOLERANCE


def original_of(net: Net, work: Path) -> Path:
    """The folder of the unpruned net's figures and graphs."""
    return work / "originals" / f"{net.name}-{hash_json([hash_file(net.model), hash_file(net.data)])[:10]}"


def times_of(net: Net, work: Path) -> Path:
    """Where a net's latencies are kept."""
    return original_of(net, work) / "times.json"


def read(path: Path) -> dict[str, Any]:
    """A report."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
