"""TensorRT: a folder that builds its engine on the device; built here where this machine can."""

from __future__ import annotations

import json
import shlex
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeopt.agent.runners import tensorrt as runner
from edgeopt.agent.runners import tensorrt_execution
from edgeopt.backends.base import Availability, Finding
from edgeopt.backends.coverage.trt import tensorrt_coverage
from edgeopt.backends.graphs import Graph, copy_graph, read_graph
from edgeopt.backends.lint import lint
from edgeopt.backends.support import HostRunner, check_options, coverage_events, refuse
from edgeopt.backends.tensorrt_build import (
    ENGINE_SCRIPT,
    MULTIPLIERS,
    RTX_CAPABILITIES,
    local_gpu,
    rtx_version,
    run_build,
    tensorrt_version,
)
from edgeopt.core.coverage import Coverage
from edgeopt.core.engine import Engine, Runner
from edgeopt.core.errors import BackendError
from edgeopt.core.events import Event
from edgeopt.core.sparsity import Pattern
from edgeopt.targets.schema import RuntimeRules, Target

__all__ = ["OPTIONS", "PLAN", "RTX_ENGINE", "TensorRTBackend"]

HOW_TO_GET = "pip install 'edgeopt[tensorrt-rtx]'"
OPTIONS: Mapping[str, type | tuple[type, ...]] = {"workspace_mib": int, "max_batch": int}
PLAN, RTX_ENGINE = "model.plan", "model.rtx.engine"
NEXT_COMMAND = "python3 build_engine.py --verify"
# Where the target's GPU cannot be built for ahead of time: the nearest that can, Ampere, as Orin is.
_PROXY = 86


class TensorRTBackend:
    """The ``tensorrt`` backend.

    The folder holds ``model.onnx`` (TensorRT's dialect), ``build_engine.py`` with its settings in ``build.json`` and
    its helper ``tensorrt_execution.py``, and ``trtexec.sh``, the same build with NVIDIA's own tool. Whoever ships the
    folder adds ``reference_inputs.npz`` and ``reference_outputs.npz`` (names as in the graph): ``build_engine.py
    --verify`` runs them. ``model.plan`` is there only where it was really built: on the target's own GPU.
    """

    name = "tensorrt"

    def available(self) -> Availability:
        """TensorRT's version where it can build; the portable folder needs nothing."""
        rtx = rtx_version()
        parser = f"tensorrt-rtx {rtx} parses and compiles ahead of time" if rtx else "tensorrt-rtx is not here"
        return Availability(
            version=tensorrt_version() or rtx,
            brings="proof, without a GPU, that TensorRT takes the graph",
            how_to_get=HOW_TO_GET,
            detail=f"{parser}; folders that build on the device need neither",
            needed=False,
        )

    def check(self, graph: Path, target: Target, rules: RuntimeRules) -> list[Finding]:
        """What the lint finds, and what TensorRT-RTX's own parser says where it is installed."""
        _settings(rules, 1)
        read = read_graph(graph)
        findings = _lint(read, target, rules)
        if rtx_version() is not None and not any(f.severity == "error" for f in findings):
            report = run_build("--onnx", str(graph), "--module", "tensorrt_rtx", "--parse-only")
            if report.error is not None:
                message = f"TensorRT-RTX {report.version}: {report.error}"
                findings.append(Finding(severity="error", rule="TRT020", node=None, message=message))
        return findings

    def compile(self, graph: Path, target: Target, rules: RuntimeRules, directory: Path, batch: int) -> Engine:
        """Write the folder; build where this machine has the target's GPU, prove it with TensorRT-RTX elsewhere."""
        read = read_graph(graph)
        settings = _settings(rules, batch) | {"sparse_weights": _is_sparse(read, target)}
        findings = _lint(read, target, rules)
        refuse("TensorRT", findings)
        events = tuple(
            Event(kind="warning", stage="compile", node=f.node, message=f"{f.rule}: {f.message} {f.fix}".rstrip())
            for f in findings
        )
        model = copy_graph(read, directory)
        shutil.copyfile(ENGINE_SCRIPT, directory / "build_engine.py")
        shutil.copyfile(tensorrt_execution.__file__, directory / "tensorrt_execution.py")
        (directory / "build.json").write_text(json.dumps(settings, indent=2) + "\n")
        (directory / "trtexec.sh").write_text(_trtexec(read, settings))
        (directory / "trtexec.sh").chmod(0o755)
        built = _build(read, model, target, directory)
        other_way = Event(kind="note", stage="compile", message="engine/trtexec.sh is the same build with trtexec.")
        return Engine(
            runtime=self.name,
            runtime_version=built.version or rules.versions,
            directory=directory,
            entry=built.entry,
            status="built" if built.done else "not_built",
            inputs=read.inputs,
            outputs=read.outputs,
            options={"module": built.module},
            next_command=None if built.done else NEXT_COMMAND,
            events=(*events, *(() if built.done else (other_way,)), *built.events),
            coverage=built.coverage,
        )

    def load(self, engine: Engine, threads: int | None) -> Runner:
        """Open an engine on this machine's GPU."""
        if engine.status == "not_built" and not engine.path.is_file():
            raise BackendError(
                "The TensorRT engine is not built: only its device can.",
                got=engine.path.name,
                fix=f"On the device, in the engine's folder: {NEXT_COMMAND}.",
            )
        return HostRunner.open(runner.open_runner, engine.path, engine.options, threads)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Built:
    """What became of the engine here. ``version`` is empty where nothing here could build it."""

    done: bool
    entry: str = PLAN
    module: str = "tensorrt"
    version: str = ""
    events: tuple[Event, ...] = ()
    coverage: Coverage | None = None


def _lint(graph: Graph, target: Target, rules: RuntimeRules) -> list[Finding]:
    return [finding for finding in lint(graph, rules, target) if finding.severity != "note"]


def _settings(rules: RuntimeRules, batch: int) -> dict[str, Any]:
    given = check_options(rules, OPTIONS)
    largest = given.get("max_batch", max(batch, 8))
    if largest < batch:
        raise BackendError("The TensorRT option 'max_batch' is below the batch to compile for.", got=largest)
    return {
        "onnx": "model.onnx",
        "min_batch": 1,
        "opt_batch": batch,
        "max_batch": largest,
        "workspace_mib": given.get("workspace_mib", 1024),
    }


def _is_sparse(graph: Graph, target: Target) -> bool:
    """Whether TensorRT is to look for sparse kernels: it takes them where they are faster, and only where weights allow."""
    return target.has_sparse_tensor_cores and any(Pattern.read(p).is_two_of_four for p in graph.sparse)


def _build(graph: Graph, model: Path, target: Target, directory: Path) -> _Built:
    notes: tuple[Event, ...] = ()
    if tensorrt_version() is not None:
        here = local_gpu()
        if here is not None and here == target.compute_capability:
            return _build_on_gpu(model, directory)
        gpu = f"has SM {here}" if here else "has no usable NVIDIA GPU"
        message = f"TensorRT is installed, but this machine {gpu} and the target has SM {target.compute_capability}."
        notes = (Event(kind="note", stage="compile", message=message),)
    if rtx_version() is None:
        message = f"Checked by edgeopt's rules only: for NVIDIA's own parser, {HOW_TO_GET}."
        return _Built(done=False, events=(*notes, Event(kind="note", stage="compile", message=message)))
    return _build_ahead_of_time(graph, model, target, directory, notes)


def _build_on_gpu(model: Path, directory: Path) -> _Built:
    """The real thing. Not exercised by edgeopt's own tests: they have no NVIDIA GPU."""
    with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
        cache = str(Path(folder) / "timing.cache")
        arguments = ["--onnx", str(model), "--output", str(directory / PLAN), "--timing-cache", cache]
        settings = json.loads((directory / "build.json").read_text())
        report = run_build(*arguments, *_flags(settings), "--module", "tensorrt")
    if report.error is not None:
        raise BackendError("TensorRT cannot build the engine.", got=report.error.rstrip("."))
    how = f"the layers of the engine that TensorRT {report.version} built on this machine's GPU"
    coverage = tensorrt_coverage(read_graph(model), report.kernels, MULTIPLIERS, how, proxy=False)
    return _Built(done=True, version=report.version, coverage=coverage)


def _build_ahead_of_time(
    graph: Graph, model: Path, target: Target, directory: Path, notes: tuple[Event, ...]
) -> _Built:
    """Compile with TensorRT-RTX on the CPU. The engine is kept only where it is the target's own."""
    own = target.compute_capability in RTX_CAPABILITIES
    capability = target.compute_capability if own else _PROXY
    settings = json.loads((directory / "build.json").read_text())
    with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
        made = Path(folder) / RTX_ENGINE
        arguments = ["--onnx", str(model), "--output", str(made), "--module", "tensorrt_rtx"]
        arguments += ["--timing-cache", str(Path(folder) / "timing.cache")]
        report = run_build(*arguments, *_flags(settings), "--ahead-of-time", str(capability))
        if report.error is not None and not report.parsed:
            raise BackendError(f"TensorRT-RTX {report.version} refuses the graph.", got=report.error.rstrip("."))
        if report.error is not None:
            message = f"TensorRT-RTX {report.version} parses the graph but does not build it: {report.error}"
            return _Built(done=False, events=(*notes, Event(kind="warning", stage="compile", message=message)))
        if own:
            shutil.copyfile(made, directory / RTX_ENGINE)
    what = "SM {0}, the target's own" if own else "SM {0}, a stand-in for the target's, and thrown away"
    proof = Event(
        kind="note",
        stage="compile",
        message=f"Parsed and compiled by TensorRT-RTX {report.version} for {what.format(capability)}; "
        "not run on the target.",
    )
    where = f"TensorRT-RTX {report.version}, SM {capability}"
    stand_in = "" if own else ", a stand-in for the target's"
    how = f"the layers of the engine that TensorRT-RTX {report.version} builds for SM {capability}{stand_in}"
    coverage = tensorrt_coverage(graph, report.kernels, MULTIPLIERS, how, proxy=not own)
    events = (
        *notes,
        proof,
        *coverage_events("compile", graph.quantized, coverage, where),
    )
    if own:
        return _Built(
            done=True, entry=RTX_ENGINE, module="tensorrt_rtx", version=report.version, events=events, coverage=coverage
        )
    return _Built(done=False, events=events, coverage=coverage)


def _flags(settings: Mapping[str, Any]) -> list[str]:
    names = ("min_batch", "opt_batch", "max_batch", "workspace_mib")
    flags = [part for name in names for part in ("--" + name.replace("_", "-"), str(settings[name]))]
    return [*flags, *(["--sparse-weights"] if settings["sparse_weights"] else [])]


def _trtexec(graph: Graph, settings: Mapping[str, Any]) -> str:
    """The same build with trtexec, as a script: it ships with JetPack and with TensorRT's archive, not with pip."""
    arguments = [
        "--onnx=model.onnx",
        "--stronglyTyped",
        f"--saveEngine={PLAN}",
        "--timingCacheFile=timing.cache",
        f"--memPoolSize=workspace:{settings['workspace_mib']}M",
        "--profilingVerbosity=detailed",
        "--exportLayerInfo=layers.json",
        *(["--sparsity=enable"] if settings["sparse_weights"] else []),
    ]
    if graph.dynamic_batch:
        for flag, batch in (("min", "min_batch"), ("opt", "opt_batch"), ("max", "max_batch")):
            # Every input is named, also those of fixed shape: trtexec takes an input that it does not find for static.
            shapes = [
                f"{spec.name}:{'x'.join(str(dim) for dim in spec.with_batch(settings[batch]).shape)}"
                for spec in graph.inputs
                if spec.has_dynamic_batch
            ]
            arguments.append(f"--{flag}Shapes={','.join(shapes)}")
    line = " ".join(shlex.quote(argument) for argument in arguments)
    return (
        "#!/bin/sh\n# The same build as build_engine.py, with NVIDIA's own tool. Run it on the device.\n"
        'set -e\ncd "$(dirname "$0")"\n'
        f'"${{TRTEXEC:-/usr/src/tensorrt/bin/trtexec}}" {line}\n'
    )
