"""What each tool makes of a net: a file, and the seconds that it took."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeopt.core.engine import Engine
from edgeopt.core.fingerprint import hash_file, hash_json
from edgeopt.pipeline.records import read_engine
from peers.environments import PEERS, python_of
from peers.nets import Net

__all__ = ["Artifact", "Own", "compile_with_edgeopt", "median", "quantize_with"]

_TOOLS = Path(__file__).parent / "tools"
# Imports are outside of a peer's time, so they are outside of edgeopt's.
_IMPORTS = "import onnxscript, edgeopt.compress.ptq, edgeopt.graph.export"
_EDGEOPT = [sys.executable, "-c", f"{_IMPORTS}; from edgeopt.cli.main import main; main()"]
_LONGEST_S = 1200  # edgeopt's own most thorough calibration may take ten minutes
_LIMITS_MISSED = (0, 4, 5)  # a verdict is no failure: the engines are there


@dataclass(kw_only=True)
class Artifact:
    """A peer's result.

    Attributes:
        file: None where it failed; ``error`` says why.
        seconds: Of each run of the peer's own call, in the order they were taken.
        earlier: Whether they were taken in an earlier run of this script.
    """

    peer: str
    variant: str
    file: Path | None
    seconds: list[float]
    earlier: bool
    versions: Mapping[str, str]
    error: str | None

    @property
    def title(self) -> str:
        """As the table names it."""
        return f"{PEERS[self.peer].title} {self.variant}"


@dataclass(kw_only=True)
class Own:
    """What edgeopt made: engines by (runtime, ``fp32`` or what the recipe makes), and stage walls per run."""

    recipe: str
    engines: dict[tuple[str, str], Engine]
    stages: list[dict[str, float]]

    @property
    def seconds(self) -> list[float]:
        """The wall time of quantization: calibration, conversion, export of the int8 graph."""
        return self._seconds("quantize")

    @property
    def checks(self) -> list[float]:
        """The wall time of what edgeopt then does and no peer: the graph against PyTorch and FP32, layer by layer."""
        return self._seconds("check int8")

    def _seconds(self, stage: str) -> list[float]:
        return [sum(wall for name, wall in run.items() if name.startswith(stage)) for run in self.stages]


def quantize_with(peer: str, variant: str, net: Net, work: Path, *, runs: int) -> Artifact:
    """Find a peer's result on a net, or make it in a fresh process of the peer's environment.

    Args:
        runs: Fresh processes to time, whatever was found; 0: the time of the run that made it is kept.
    """
    script, made = _TOOLS / PEERS[peer].script, PEERS[peer].variants[variant]
    sources = [hash_file(script), hash_file(_TOOLS / "exchange.py")]
    key = hash_json([PEERS[peer].requirements, variant, *sources, *net.fingerprint()])
    folder = work / "artifacts" / f"{net.name}-{peer}-{variant}-{key[:12]}"
    earlier = folder.is_dir()
    if not earlier:
        partial = folder.with_name(folder.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _run_peer(peer, variant, net, work, partial)
        partial.rename(folder)
    report = json.loads((folder / "report.json").read_text())
    seconds = [] if report["error"] else [report["seconds"]]
    if runs and not report["error"]:
        again = seconds if not earlier else []
        while len(again) < runs:
            with tempfile.TemporaryDirectory() as scratch:
                again.append(_run_peer(peer, variant, net, work, Path(scratch))["seconds"])
        seconds, earlier = again, False
    return Artifact(
        peer=peer,
        variant=variant,
        file=None if report["error"] else folder / f"model{made.suffix}",
        seconds=seconds,
        earlier=earlier,
        versions=report["versions"],
        error=report["error"],
    )


def compile_with_edgeopt(recipe: str, net: Net, work: Path, *, runs: int) -> Own:
    """Compile a net with edgeopt, ``runs`` times, each in a fresh process with an empty cache.

    The engines of the last run are kept where edgeopt put them: in its cache, dialects and all.
    """
    cache = work / "edgeopt" / f"{net.name}-{Path(recipe).stem}"
    stages: list[dict[str, float]] = []
    taken: dict[tuple[str, str], str] = {}
    for _ in range(runs):
        shutil.rmtree(cache, ignore_errors=True)
        report = _run_edgeopt(recipe, net, cache)
        stages.append({row["name"]: row["wall"]["value"] for row in report["stages"]})
        taken = {(one["runtime"], one["precision"]): one["dialect"] for one in report["candidates"]}
    engines: dict[tuple[str, str], tuple[float, Engine]] = {}
    for record in cache.glob("engine/*/stage.json"):
        key = json.loads(record.read_text())
        if "rules" not in key:
            continue  # a witness
        where, made = (key["rules"]["name"], key["precision"]), record.stat().st_mtime
        if taken.get(where) != key["dialect"]:
            continue  # a form that was tried and not taken
        if where not in engines or engines[where][0] < made:
            engines[where] = made, read_engine(record.parent)
    return Own(recipe=recipe, engines={where: engine for where, (_, engine) in engines.items()}, stages=stages)


def _run_peer(peer: str, variant: str, net: Net, work: Path, folder: Path) -> dict[str, Any]:
    report = folder / "report.json"
    command = [str(python_of(peer, work)), "-B", str(_TOOLS / PEERS[peer].script)]
    command += ["--model", str(net.onnx), "--calibration", str(net.calibration), "--variant", variant]
    command += ["--out", str(folder / f"model{PEERS[peer].variants[variant].suffix}"), "--report", str(report)]
    # PYTHONPATH would mix edgeopt's environment into the peer's; tools that keep a history keep it in the scratch.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "EDGEOPT"))}
    environment["DO_NOT_TRACK"] = environment["ORT_DISABLE_TELEMETRY"] = "1"
    with (folder / "log.txt").open("w") as log, tempfile.TemporaryDirectory() as scratch:
        try:
            done = subprocess.run(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=scratch,
                env=environment | {"HOME": scratch},
                timeout=_LONGEST_S,
                check=False,
            )
            ending = f"its process ended with {done.returncode}"
        except subprocess.TimeoutExpired:
            ending = f"it was not done after {_LONGEST_S} s"
    if not report.is_file():
        tail = (folder / "log.txt").read_text(errors="replace").strip().splitlines()[-1:] or ["no output"]
        error = f"{ending}: {tail[0][:200]}"
        report.write_text(json.dumps({"seconds": None, "versions": {}, "error": error}))
    return json.loads(report.read_text())


def _run_edgeopt(recipe: str, net: Net, cache: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        command = [*_EDGEOPT, "compile", str(net.model), "--target", "local", "--data", str(net.edgeopt_data)]
        command += ["--recipe", recipe, "--set", f"steps.quantize.calibration_samples={net.samples}"]
        # It is measured below, beside the peers; the samples are for the choice between forms.
        command += ["--set", "measure.latency_samples=200", "--set", "measure.batch_sizes=[1]"]
        command += ["-o", f"{scratch}/bundle", "--json"]
        environment = os.environ | {"EDGEOPT_CACHE_DIR": str(cache)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode not in _LIMITS_MISSED:
        raise RuntimeError(f"edgeopt cannot compile {net.name}: {done.stderr.strip()[-600:]}")
    return json.loads(done.stdout)


def median(seconds: list[float]) -> float | None:
    """The middle one; None where there is none."""
    return statistics.median(seconds) if seconds else None
