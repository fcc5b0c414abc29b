"""What needs no clock: both tools prune, everything is recovered, the unpruned net is evaluated; in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from peers.environments import make_environment
from zoo_folder import Net

from pruning.plan import REQUIREMENTS, TOLERANCE, Run, comparable, original_of, read

__all__ = ["train"]

_WORK = Path(__file__).parent / "work.py"
_RIVAL = Path(__file__).parents[1] / "pruning_rival.py"


def train(nets: list[Net], runs: list[Run], work: Path, jobs: int) -> list[str]:
    """Everything that needs no clock. Returns what failed."""
    rival = make_environment("torch-pruning", REQUIREMENTS, work / "torch-pruning")
    failed: list[str] = []

    def attempt(name: str, task: Any, *given: Any) -> None:
        begun = time.perf_counter()
        try:
            said = task(*given)
        except RuntimeError as error:
            failed.append(name)
            said = f"FAILED: {error}"
        print(
            f"{time.strftime('%H:%M:%S')} {name}: {said} ({time.perf_counter() - begun:.0f} s)",
            file=sys.stderr,
            flush=True,
        )

    with ThreadPoolExecutor(jobs) as pool:
        for run in runs:
            if run.way.own:
                pool.submit(attempt, f"{run.name}, prune", prune, run, rival)
    with ThreadPoolExecutor(jobs) as pool:
        for net in nets:
            pool.submit(attempt, f"{net.name}, unpruned", keep_original, net, work)
        for run in sorted(runs, key=lambda run: not run.way.own):  # what the others are compared with comes first
            pool.submit(attempt, run.name, recover, run, rival)
    return failed


def prune(run: Run, rival: Path) -> str:
    """Make ``pruned.pt2`` and its report, where they are not there."""
    report = run.pruned / "prune.json"
    if not report.is_file():
        if run.way.own:
            spawn(sys.executable, _WORK, run.pruned, {**run.job, "do": "prune"})
        else:
            job = {
                **run.job,
                "samples": str(run.own / "samples.npz"),
                "macs": read(run.own / "prune.json")["macs"],
                "tolerance": TOLERANCE,
                "pruned": str(run.pruned / "pruned.pt2"),
                "report": str(report),
            }
            spawn(str(rival), _RIVAL, run.pruned, job)
    return f"{read(report)['macs'] / 1e6:.2f} M MACs"


def recover(run: Run, rival: Path) -> str:
    """Prune, and train what is left; unless it is not what was asked for."""
    said = prune(run, rival)
    if not comparable(run):
        return f"{said}: no ratio comes within {100 * TOLERANCE:.0f} % of edgeopt's, not compared"
    if not (run.recovered / "recover.json").is_file():
        job = {**run.job, "do": "recover", "pruned": str(run.pruned / "pruned.pt2")}
        spawn(sys.executable, _WORK, run.recovered, job)
    return f"{said}, {read(run.recovered / 'recover.json')['accuracy_recovered']:.2f} %"


def keep_original(net: Net, work: Path) -> str:
    """Evaluate and quantize the unpruned net."""
    folder = original_of(net, work)
    if not (folder / "original.json").is_file():
        job = {"do": "original", "model": str(net.model.absolute()), "data": str(net.data.absolute())}
        spawn(sys.executable, _WORK, folder, {**job, "seed": 0, "train_samples": None})
    return f"{read(folder / 'original.json')['accuracy']:.2f} %"


def spawn(python: str, script: Path, folder: Path, job: Mapping[str, Any]) -> None:
    """Work in a process of its own, with one thread.

    Raises:
        RuntimeError: It failed; its last words are in the message.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{script.stem}.job"
    path.write_text(json.dumps({**job, "folder": str(folder)}, indent=1), encoding="utf-8")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if python != sys.executable:  # PYTHONPATH would mix edgeopt's environment into the rival's
        environment = {name: value for name, value in environment.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [python, str(script), str(path)], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        raise RuntimeError(" ".join(done.stderr.split())[-600:] or f"exit code {done.returncode}")
