"""TensorRT: a folder that builds its engine on the device; built here where this machine can."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from edgeopt.agent.runners import tensorrt as runner
from edgeopt.backends.base import Availability, Finding
from edgeopt.backends.coverage.trt import tensorrt_coverage
from edgeopt.backends.dla_words import dla_events, dla_findings
from edgeopt.backends.graphs import Graph, read_graph
from edgeopt.backends.lint import lint
from edgeopt.backends.support import HostRunner, coverage_events, refuse
from edgeopt.backends.tensorrt_build import (
    MULTIPLIERS,
    RTX_CAPABILITIES,
    local_gpu,
    rtx_version,
    run_build,
    tensorrt_version,
)
from edgeopt.backends.tensorrt_folder import OPTIONS, PLAN, build_flags, dla_plan, settings_of, write_folder
from edgeopt.core.coverage import Coverage
from edgeopt.core.engine import Engine, Runner
from edgeopt.core.errors import BackendError
from edgeopt.core.events import Event
from edgeopt.targets.schema import RuntimeRules, Target

__all__ = ["OPTIONS", "PLAN", "RTX_ENGINE", "TensorRTBackend"]

HOW_TO_GET = "pip install 'edgeopt[tensorrt-rtx]'"
RTX_ENGINE = "model.rtx.engine"
NEXT_COMMAND = "python3 build_engine.py --verify"
# Where the target's GPU cannot be built for ahead of time: the nearest that can, Ampere, as Orin is.
_PROXY = 86


class TensorRTBackend:
    """The ``tensorrt`` backend.

    The folder holds ``model.onnx`` (TensorRT's dialect), ``build_engine.py`` with its settings in ``build.json`` and
    its parts beside it, and ``trtexec.sh``, the same build with NVIDIA's own tool. Whoever ships the
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
        read = read_graph(graph)
        settings = settings_of(read, target, rules, _batch(rules))
        findings = [*_lint(read, target, rules), *dla_findings(dla_plan(read, settings))]
        if rtx_version() is not None and not any(f.severity == "error" for f in findings):
            report = run_build("--onnx", str(graph), "--module", "tensorrt_rtx", "--parse-only")
            if report.error is not None:
                message = f"TensorRT-RTX {report.version}: {report.error}"
                findings.append(Finding(severity="error", rule="TRT020", node=None, message=message))
        return findings

    def compile(self, graph: Path, target: Target, rules: RuntimeRules, directory: Path, batch: int) -> Engine:
        """Write the folder; build where this machine has the target's GPU, prove it with TensorRT-RTX elsewhere."""
        read = read_graph(graph)
        settings = settings_of(read, target, rules, batch)
        plan = dla_plan(read, settings)
        findings = _lint(read, target, rules)
        refuse("TensorRT", findings)
        events = (
            *(
                Event(kind="warning", stage="compile", node=f.node, message=f"{f.rule}: {f.message} {f.fix}".rstrip())
                for f in findings
            ),
            *dla_events(plan, settings["dla"], asked="dla" in rules.options),
        )
        model = write_folder(read, settings, directory)
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


def _batch(rules: RuntimeRules) -> int:
    """A batch that the options allow, where none is given yet."""
    asked = rules.options.get("opt_batch", rules.options.get("min_batch", 1))
    return asked if isinstance(asked, int) else 1


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
        report = run_build(*arguments, *build_flags(settings), "--module", "tensorrt")
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
        report = run_build(*arguments, *build_flags(settings), "--ahead-of-time", str(capability))
        if report.error is not None and not report.parsed:
            raise BackendError(f"TensorRT-RTX {report.version} refuses the graph.", got=report.error.rstrip("."))
        if report.error is not None:
            message = f"TensorRT-RTX {report.version} parses the graph but does not build it: {report.error}"
            return _Built(done=False, events=(*notes, Event(kind="warning", stage="compile", message=message)))
        if own:
            for file in (made, made.with_name(f"{made.name}.json")):
                shutil.copyfile(file, directory / file.name)
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
