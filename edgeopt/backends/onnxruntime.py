"""ONNX Runtime on a CPU: the ONNX file as it is, with the session options that suit the target."""

# ruff: noqa: ARG002 (the protocol gives every backend the same arguments)

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeopt.agent.runners import onnxruntime as runner
from edgeopt.backends.base import Availability, Finding
from edgeopt.backends.coverage.ort import ort_coverage
from edgeopt.backends.graphs import Graph, copy_graph, read_graph
from edgeopt.backends.lint import lint, predictions_left_out
from edgeopt.backends.support import (
    HostRunner,
    check_options,
    coverage_events,
    installed_version,
    packed_events,
    require_installed,
)
from edgeopt.core.engine import Engine, Runner
from edgeopt.core.errors import BackendError
from edgeopt.core.events import Event
from edgeopt.targets.schema import RuntimeRules, Target

__all__ = ["OPTIONS", "OnnxRuntimeBackend", "runner_options", "session_config"]

HOW_TO_GET = "pip install 'edgeopt[onnxruntime]'"
OPTIONS: Mapping[str, type | tuple[type, ...]] = {
    "providers": (list, tuple),
    "graph_optimization_level": str,
    "disabled_optimizers": (list, tuple),
}
"""Options by name; session configuration entries (``session.…``) stand beside them."""
_CONFIG: Mapping[str, str] = {
    # A spinning thread of an idle engine takes the core that the engine beside it is measured on.
    "session.intra_op.allow_spinning": "0",
    # A product with a quantized weight and a float input is computed in float (1). ONNX Runtime's own default (4)
    # quantizes the input to int8 on the fly, which the graph does not say.
    "session.qdq_matmulnbits_accuracy_level": "1",
}
CONFIG_PREFIXES = ("session.", "optimization.", "ep.", "mlas.", "memory.")
LEVELS = ("disable", "basic", "extended", "layout", "all")


class OnnxRuntimeBackend:
    """The ``onnxruntime`` backend. An engine is ``model.onnx``; ONNX Runtime optimizes it when it is opened."""

    name = "onnxruntime"

    def available(self) -> Availability:
        """Whether it is installed."""
        return Availability(
            version=installed_version("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"),
            brings="int8 and float on x86 and ARM CPUs",
            how_to_get=HOW_TO_GET,
        )

    def check(self, graph: Path, target: Target, rules: RuntimeRules) -> list[Finding]:
        """Whether the options are known, and what the rules find that no compile shows by itself."""
        runner_options(rules)
        return predictions_left_out(lint(read_graph(graph), rules, target), self.name)

    def compile(self, graph: Path, target: Target, rules: RuntimeRules, directory: Path, batch: int) -> Engine:
        """Copy the graph, and open it once to see that ONNX Runtime takes it and what it leaves in float."""
        version = require_installed(self.name, self.available().version, HOW_TO_GET)
        options = runner_options(rules)
        read = read_graph(graph)
        path = copy_graph(read, directory)
        with HostRunner.open(runner.open_runner, path, options, 1) as opened:
            fallbacks = tuple(Event(kind="fallback", stage="compile", message=text) for text in opened.fallbacks)
        coverage = ort_coverage(path, options, read, version)
        where = f"ONNX Runtime {version} on this machine"
        return Engine(
            runtime=self.name,
            runtime_version=version,
            directory=directory,
            entry=path.name,
            status="built",
            inputs=read.inputs,
            outputs=read.outputs,
            options=options,
            events=fallbacks
            + coverage_events("compile", read.quantized, coverage, where)
            + packed_events("compile", _packed(read), (), where),
            coverage=coverage,
        )

    def load(self, engine: Engine, threads: int | None) -> Runner:
        """Open an engine in this process."""
        return HostRunner.open(runner.open_runner, engine.path, engine.options, threads)


def runner_options(rules: RuntimeRules) -> dict[str, Any]:
    """The target's options, complete: what a runner needs to run the engine as compiled.

    Raises:
        BackendError: An option is unknown or malformed.
    """
    config = session_config(rules)
    given = check_options(rules, OPTIONS, others=config)
    level = given.get("graph_optimization_level", "all")
    if level not in LEVELS:
        raise BackendError(
            "ONNX Runtime has no such optimization level.", got=repr(level), fix=f"Use one of {', '.join(LEVELS)}."
        )
    return {
        "providers": list(given.get("providers", ["CPUExecutionProvider"])),
        "graph_optimization_level": level,
        "disabled_optimizers": list(given.get("disabled_optimizers", [])),
        "config": config,
    }


def session_config(rules: RuntimeRules) -> dict[str, str]:
    """The session configuration entries among the target's options: ONNX Runtime's own keys, which have a dot.

    Raises:
        BackendError: A value is not a text, a bool or an int.
    """
    entries = dict(_CONFIG)
    for key, value in sorted(rules.options.items()):
        if key.startswith(CONFIG_PREFIXES):
            if not isinstance(value, str | int):
                raise BackendError(f"The session option {key!r} must be a text, a bool or an int.", got=repr(value))
            entries[key] = str(int(value) if isinstance(value, bool) else value)
    return entries


def _packed(graph: Graph) -> list[str]:
    """The nodes that are written as MatMulNBits, which has a kernel for whatever it can express."""
    written = {n.name or n.output[0] for n in graph.model.graph.node if n.op_type == "MatMulNBits"}
    return [name for name in graph.packed if name in written]
