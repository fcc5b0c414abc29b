"""edgeopt's pruning beside torch-pruning's: the same multiply-accumulates, the same recovery, accuracy and latency.

python benchmarks/zoo/train.py build/zoo resnet20 mobilenetv2
python benchmarks/pruning.py build/zoo                              # hours of training on two cores; goes on where it was stopped
python benchmarks/pruning.py build/zoo --time --json pruning.json   # on a quiet machine: the clock, and the tables

edgeopt prunes by its step ``prune`` (Taylor); torch-pruning, in an environment of its own, by MetaPruner with global
ranking and its group importances, at edgeopt's multiply-accumulates. Each result is recovered by edgeopt's step
``distil``, taught by the FP32 original. A seed decides the order of the training data and which samples Taylor reads.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peers.environments import make_environment
from zoo_folder import Net, add_arguments, find_nets, use_own_cache

from edgeopt.core.fingerprint import hash_file, hash_json

HERE = Path(__file__).parent
ROOT = HERE.parent
REQUIREMENTS = ("torch-pruning==1.6.1", "torch==2.13.0", "numpy==2.4.6")
MACS = {"resnet20": 1 / 2, "mobilenetv2": 1 / 1.5}
TOLERANCE = 0.02  # of edgeopt's multiply-accumulates
ROUND_TO = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One way to prune. ``round_to``: what widths are multiples of; None: anything."""

    name: str
    title: str
    importance: str
    round_to: int | None
    own: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One net pruned in one way with one seed, and where its results are kept.

    Attributes:
        job: What every process that works on it is told.
        pruned: The folder of its pruned model; ``own``: of edgeopt's, with this seed.
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


def main() -> int:
    arguments = parse()
    nets = find_nets(arguments.zoo, arguments.nets or list(MACS))
    use_own_cache(arguments.zoo)
    runs = [
        plan(net, way, seed, arguments) for net in nets for seed in arguments.seeds for way in list_ways(arguments.round_to)
    ]
    failed: list[str] = []
    if not arguments.time:
        failed = train(nets, runs, arguments)
    return 1 if failed else 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="default: 0 1 2")
    parser.add_argument("--epochs", type=int, default=4, help="of recovery (default: %(default)s)")
    parser.add_argument("--train-samples", type=int, metavar="N", help="recover on so many (default: all)")
    parser.add_argument(
        "--round-to", type=int, default=ROUND_TO, metavar="N", help="what widths are multiples of (default: %(default)s)"
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time, one thread each (default: %(default)s)")
    parser.add_argument("--work", type=Path, default=ROOT / "build/pruning", help="results, kept from run to run")
    parser.add_argument("--time", action="store_true", help="train nothing: time what is there, alone on the machine")
    parser.add_argument("--runs", type=int, default=40, help="turns of 20 timed inferences per engine (default: 40)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the raw figures")
    arguments = parser.parse_args()
    arguments.work = arguments.work.absolute()
    if arguments.runs < 5:
        parser.error("--runs: five turns at least, or there is no interval")
    if unknown := set(arguments.nets) - set(MACS):
        parser.error(f"no such net: {', '.join(sorted(unknown))}; there are {', '.join(MACS)}")
    return arguments


def list_ways(multiple: int) -> list[Way]:
    """edgeopt's first: the others prune down to its multiply-accumulates."""
    ways = [
        Way(name=f"edgeopt-{multiple}", title=f"edgeopt Taylor, ×{multiple}", importance="taylor", round_to=multiple, own=True)
    ]
    for round_to in (None, multiple):
        for importance in ("taylor", "magnitude"):
            name = f"torch-pruning-{importance}" + ("" if round_to is None else f"-{round_to}")
            title = f"torch-pruning {importance.capitalize()}" + ("" if round_to is None else f", ×{round_to}")
            ways.append(Way(name=name, title=title, importance=importance, round_to=round_to))
    return ways


def plan(net: Net, way: Way, seed: int, arguments: argparse.Namespace) -> Run:
    """Where a run's results are: what decides them is in the folders' names."""
    sources = {"model": hash_file(net.model), "data": hash_file(net.data), "seed": seed, "macs_ratio": MACS[net.name]}
    own = {**sources, "round_to": arguments.round_to}
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
        "macs_ratio": MACS[net.name],
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
        own=folder("pruned", f"edgeopt-{arguments.round_to}", own),
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


def train(nets: list[Net], runs: list[Run], arguments: argparse.Namespace) -> list[str]:
    """Everything that needs no clock. Returns what failed."""
    rival = make_environment("torch-pruning", REQUIREMENTS, arguments.work / "torch-pruning")
    failed: list[str] = []

    def attempt(name: str, work: Any, *given: Any) -> None:
        begun = time.perf_counter()
        try:
            said = work(*given)
        except RuntimeError as error:
            failed.append(name)
            said = f"FAILED: {error}"
        print(f"{time.strftime('%H:%M:%S')} {name}: {said} ({time.perf_counter() - begun:.0f} s)", file=sys.stderr, flush=True)

    with ThreadPoolExecutor(arguments.jobs) as pool:
        for run in runs:
            if run.way.own:
                pool.submit(attempt, f"{run.name}, prune", prune, run, rival)
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for run in runs:
            pool.submit(attempt, run.name, recover, run, rival)
        for net in nets:
            pool.submit(attempt, f"{net.name}, unpruned", keep_original, net, arguments.work)
    return failed


def prune(run: Run, rival: Path) -> str:
    """Make ``pruned.pt2`` and its report, where they are not there."""
    report = run.pruned / "prune.json"
    if not report.is_file():
        if run.way.own:
            spawn(sys.executable, "pruning_work.py", run.pruned, {**run.job, "do": "prune"})
        else:
            job = {
                **run.job,
                "samples": str(run.own / "samples.npz"),
                "macs": read(run.own / "prune.json")["macs"],
                "tolerance": TOLERANCE,
                "pruned": str(run.pruned / "pruned.pt2"),
                "report": str(report),
            }
            spawn(str(rival), "pruning_rival.py", run.pruned, job)
    return f"{read(report)['macs'] / 1e6:.2f} M MACs"


def recover(run: Run, rival: Path) -> str:
    """Prune, and train what is left; unless it is not what was asked for."""
    said = prune(run, rival)
    if not comparable(run):
        return f"{said}: no ratio comes within {100 * TOLERANCE:.0f} % of edgeopt's, not compared"
    if not (run.recovered / "recover.json").is_file():
        job = {**run.job, "do": "recover", "pruned": str(run.pruned / "pruned.pt2")}
        spawn(sys.executable, "pruning_work.py", run.recovered, job)
    return f"{said}, {read(run.recovered / 'recover.json')['accuracy_recovered']:.2f} %"


def comparable(run: Run) -> bool:
    """Whether its multiply-accumulates are edgeopt's, as far as the tolerance goes."""
    share = read(run.pruned / "prune.json")["macs"] / read(run.own / "prune.json")["macs"]
    return abs(share - 1) <= TOLERANCE


def original_of(net: Net, work: Path) -> Path:
    """The folder of the unpruned net's figures and graphs."""
    return work / "originals" / f"{net.name}-{hash_json([hash_file(net.model), hash_file(net.data)])[:10]}"


def keep_original(net: Net, work: Path) -> str:
    """Evaluate and quantize the unpruned net."""
    folder = original_of(net, work)
    if not (folder / "original.json").is_file():
        job = {"do": "original", "model": str(net.model.absolute()), "data": str(net.data.absolute())}
        spawn(sys.executable, "pruning_work.py", folder, {**job, "seed": 0, "train_samples": None})
    return f"{read(folder / 'original.json')['accuracy']:.2f} %"


def spawn(python: str, script: str, folder: Path, job: Mapping[str, Any]) -> None:
    """Work in a process of its own, with one thread.

    Raises:
        RuntimeError: It failed; its last words are in the message.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{Path(script).stem}.job"
    path.write_text(json.dumps({**job, "folder": str(folder)}, indent=1), encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if python != sys.executable:  # PYTHONPATH would mix edgeopt's environment into the rival's
        environment = {name: value for name, value in environment.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [python, str(HERE / script), str(path)], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        raise RuntimeError(" ".join(done.stderr.split())[-600:] or f"exit code {done.returncode}")


def read(path: Path) -> dict[str, Any]:
    """A report."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    sys.exit(main())
