"""What backends that compile torch programs share: findings on a graph, and the options that their runners need."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeopt.backends.base import Finding
from edgeopt.backends.graphs import read_graph
from edgeopt.backends.support import check_opset
from edgeopt.backends.torch_program.table import unknown
from edgeopt.core.errors import BackendError
from edgeopt.core.events import Event
from edgeopt.core.spec import TensorSpec
from edgeopt.targets.schema import RuntimeRules

__all__ = ["OPSET_MAX", "batch_event", "find_problems", "runner_ports"]

OPSET_MAX = 23
"""The newest opset whose operators the table was written after."""


def find_problems(graph: Path, rules: RuntimeRules, prefix: str, runtime: str) -> list[Finding]:
    """Opsets that the target excludes, sizes that vary, operators that no step computes. torch is not imported."""
    read = read_graph(graph)
    findings = check_opset(read, rules, f"{prefix}001")
    try:
        read.require_batch_only(runtime)
    except BackendError as error:
        findings.append(Finding(severity="error", rule=f"{prefix}002", node=None, message=str(error)))
    for op in unknown(_op(node) for node in read.model.graph.node):
        node = next(node for node in read.model.graph.node if _op(node) == op)
        message = f"edgeopt cannot write {op} as a torch program, which {runtime} compiles from."
        name = node.name or node.output[0]
        findings.append(Finding(severity="error", rule=f"{prefix}003", node=name, message=message))
    return findings


def runner_ports(
    inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], dynamic_batch: Sequence[str], *, rows: bool
) -> dict[str, Any]:
    """The engine's options as ``agent/runners/fixed_batch.py`` reads them."""
    return {
        "inputs": [{"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)} for spec in inputs],
        "outputs": [{"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)} for spec in outputs],
        "dynamic_batch": list(dynamic_batch),
        "rows": rows,
    }


def batch_event(runtime: str, batch: int, dynamic_batch: Sequence[str]) -> tuple[Event, ...]:
    """Says that the batch was fixed, where it was not fixed before."""
    if not dynamic_batch:
        return ()
    message = f"{runtime}'s engine is compiled for a batch of {batch}; a larger one is run in parts, one after another."
    return (Event(kind="note", stage="compile", message=message),)


def _op(node: Any) -> str:
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
