"""Qualcomm's Hexagon processor: a context binary per architecture, through ONNX Runtime's QNN provider."""

# ruff: noqa: ARG002 (the protocol gives every backend the same arguments)

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgeopt.agent.runners import qnn as runner
from edgeopt.agent.runners.contract import first_useful_line
from edgeopt.backends.base import Availability, Finding
from edgeopt.backends.graphs import Graph, copy_graph, read_graph
from edgeopt.backends.static_batch import fix_batch
from edgeopt.backends.support import HostRunner, check_opset, check_options, installed_version, require_installed
from edgeopt.core.engine import Engine, Runner
from edgeopt.core.errors import BackendError
from edgeopt.core.events import Event
from edgeopt.targets.schema import RuntimeRules, Target

__all__ = ["ARCHITECTURES", "OPTIONS", "QnnBackend"]

HOW_TO_GET = "pip install 'edgeopt[qnn]'"
OPTIONS: Mapping[str, type | tuple[type, ...]] = {"htp_arch": int, "htp_performance_mode": str}
"""``htp_arch``: the Hexagon architecture that the binary is for; ``htp_performance_mode``: for the app on the phone."""
ARCHITECTURES = (73, 75, 79, 81)
_MODES = ("default", "burst", "balanced", "high_performance", "power_saver", "sustained_high_performance")
_TIMEOUT_S = 3600
# The binaries, and what turns numbers into integers at their borders.
_BORDER = frozenset({"EPContext", "QuantizeLinear", "DequantizeLinear", "Cast"})
# In a process of its own: the libraries are Qualcomm's, and what ends them would end us.
_COMPILE = """
import json, pathlib, sys
from edgeopt.agent.runners.qnn import import_qnn, open_session
source, made, options = json.loads(sys.argv[1])
extra = {"ep.context_enable": "1", "ep.context_file_path": made, "ep.context_embed_mode": "0"}
open_session(import_qnn(), pathlib.Path(source), options, 1, extra)
"""


class QnnBackend:
    """The ``qnn`` backend. An engine is ``model.onnx``, whose nodes are context binaries beside it, at a static shape.

    What the provider does not take stays in ``model.onnx`` as it was, runs on the CPU, and is a fall-back. Two compiles
    differ in a few bytes: QNN names its pieces anew in each run.
    """

    name = "qnn"

    def available(self) -> Availability:
        """Whether it is installed."""
        version = installed_version("onnxruntime-qnn")
        if installed_version("onnxruntime", "onnxruntime-gpu") is None:
            version = None
        return Availability(
            version=version,
            brings="context binaries for Snapdragon's Hexagon processor, and its simulator",
            how_to_get=HOW_TO_GET,
        )

    def check(self, graph: Path, target: Target, rules: RuntimeRules) -> list[Finding]:
        """Whether the options are known, the opset is readable, only the batch varies, and activations are unsigned."""
        _options(rules)
        read = read_graph(graph)
        findings = check_opset(read, rules, "QNN001")
        try:
            read.require_batch_only("QNN")
        except BackendError as error:
            findings.append(Finding(severity="error", rule="QNN002", node=None, message=str(error)))
        message = (
            "Its output is signed int8, which the Hexagon simulator computes wrongly (a convolution with zero point 0 was "
            "off by 40 % of its range); write activations as uint8, as the ort-x86 dialect does."
        )
        findings += [
            Finding(severity="error", rule="QNN003", node=node, message=message) for node in _signed_activations(read)
        ]
        return findings

    def compile(self, graph: Path, target: Target, rules: RuntimeRules, directory: Path, batch: int) -> Engine:
        """Fix the batch, compile for the target's Hexagon, and say what stays on the CPU."""
        version = require_installed(self.name, self.available().version, HOW_TO_GET)
        options = _options(rules)
        read = read_graph(graph)
        with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
            source = copy_graph(read, Path(folder))
            read = fix_batch(read, source, batch, "QNN")
            entry = directory / "model.onnx"
            _compile(source, entry, options)
        made = read_graph(entry)
        return Engine(
            runtime=self.name,
            runtime_version=version,
            directory=directory,
            entry=entry.name,
            status="built",
            inputs=read.inputs,
            outputs=read.outputs,
            options=options,
            events=tuple(_events(read, made, options["provider"]["htp_arch"])),
        )

    def load(self, engine: Engine, threads: int | None) -> Runner:
        """Open an engine in this process: on x86-64, in the simulator."""
        return HostRunner.open(runner.open_runner, engine.path, engine.options, threads)


def _options(rules: RuntimeRules) -> dict[str, Any]:
    given = check_options(rules, OPTIONS)
    arch = given.get("htp_arch", ARCHITECTURES[0])
    if arch not in ARCHITECTURES:
        known = ", ".join(map(str, ARCHITECTURES))
        raise BackendError("QNN is not compiled for that Hexagon architecture.", got=arch, fix=f"Use one of {known}.")
    mode = given.get("htp_performance_mode", "burst")
    if mode not in _MODES:
        fix = f"Use one of {', '.join(_MODES)}."
        raise BackendError("QNN has no such performance mode.", got=repr(mode), fix=fix)
    provider = {"htp_arch": str(arch), "htp_performance_mode": mode, "htp_graph_finalization_optimization_mode": "3"}
    return {"provider": provider, "graph_optimization_level": "all", "config": {}}


def _compile(source: Path, made: Path, options: Mapping[str, Any]) -> None:
    """Write ``made`` and its context binaries.

    Raises:
        BackendError: QNN refused the graph, took none of it, or did not end within an hour.
    """
    command = [sys.executable, "-P", "-c", _COMPILE, json.dumps([str(source), str(made), dict(options)])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise BackendError("QNN did not compile the graph within an hour.") from error
    if done.returncode != 0:
        said = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise BackendError("QNN cannot compile the graph.", got=first_useful_line(said.split("Error: ")[-1]))
    if not made.is_file():
        raise BackendError("QNN takes no node of this graph, so there is nothing to compile.", got=source.name)


def _events(before: Graph, after: Graph, arch: str) -> Iterator[Event]:
    """How many pieces there are, and which nodes stay on the CPU."""
    pieces = sum(node.op_type == "EPContext" for node in after.model.graph.node)
    left = [node.name or node.output[0] for node in after.model.graph.node if node.op_type not in _BORDER]
    total = sum(node.op_type not in _BORDER for node in before.model.graph.node)
    yield Event(
        kind="note",
        stage="compile",
        message=f"{total - len(left)} of {total} nodes are in {pieces} context {'binary' if pieces == 1 else 'binaries'} "
        f"for Hexagon v{arch}; checked in the simulator, not run on a device. Its float layers are float16 on the device, "
        "and float32 in the simulator.",
    )
    message = f"QNN leaves it on the CPU ({len(left)} of {total} nodes)."
    yield from (Event(kind="fallback", stage="compile", node=node, message=message) for node in left)


def _signed_activations(graph: Graph) -> Iterator[str]:
    """The QuantizeLinear nodes whose output is int8."""
    import onnx  # noqa: PLC0415

    signed = {t.name for t in graph.model.graph.initializer if t.data_type == onnx.TensorProto.INT8}
    for node in graph.model.graph.node:
        if node.op_type == "QuantizeLinear" and len(node.input) > 2 and node.input[2] in signed:
            yield node.name or node.output[0]
