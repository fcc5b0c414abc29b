"""Which node of the ONNX graph a timed kernel computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeopt.backends.coverage.nodes import Multiplication, multiplications
from edgeopt.backends.coverage.ort import FLOAT_KERNELS, INT8_KERNELS, remade_from
from edgeopt.backends.coverage.ort_causes import cause_of
from edgeopt.backends.coverage.ov import MULTIPLIERS, known_node, names_of_nodes, openvino_ops, precision_of
from edgeopt.backends.graphs import read_graph
from edgeopt.core.coverage import INT8, Coverage, ExecutedOp

__all__ = ["computed_nodes", "coverage_of_layers"]


def coverage_of_layers(graph: Path, runtime: str, layers: Sequence[Mapping[str, Any]], how: str) -> Coverage | None:
    """What an engine runs each multiplication in, by the layers that ran on the device itself.

    Args:
        graph: The ONNX file that the engine was made of.
        runtime: ``openvino``, or a runtime of ONNX Runtime's.
        layers: Rows of the agent's ``layers``.
        how: Where they come from.

    Returns:
        None where nothing of the graph is quantized.
    """
    found = multiplications(read_graph(graph))
    if not any(one.planned or one.packed for one in found):
        return None
    if runtime == "openvino":
        return Coverage(ops=openvino_ops(layers, found), how=how)
    ran = dict(computed_nodes(graph, layers))
    return Coverage(ops=tuple(_executed(one, ran.get(one.node, "")) for one in found), how=how)


def _executed(one: Multiplication, runs_in: str) -> ExecutedOp:
    cause, fix = "", ""
    if not runs_in:
        cause = "No kernel of its name was seen to run."
    elif runs_in != INT8:
        cause, fix = cause_of(one)
    return ExecutedOp(node=one.node, op=one.op, macs=0, runs_in=runs_in, cause=cause, fix=fix)


def computed_nodes(graph: Path, layers: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The node that each kernel multiplies for, and in what; an empty node where it multiplies for none.

    Args:
        graph: The ONNX file that the engine was made of.
        layers: Rows of the agent's ``layers``: ``names``, ``op``, ``kernel``.

    Raises:
        BackendError: The file is not an ONNX model.
    """
    read = read_graph(graph)
    everything, nameless = multiplications(read), any(not node.name for node in read.model.graph.node)
    known = names_of_nodes(everything)
    taken: set[str] = set()
    found = []
    for layer in layers:
        op, kernel = str(layer["op"]), str(layer["kernel"])
        multiplies = op in INT8_KERNELS | FLOAT_KERNELS | MULTIPLIERS
        names = [remade_from(str(name)) for name in layer["names"]]
        node = (
            next((n for name in names if (n := known_node(name, known)) and n not in taken), "") if multiplies else ""
        )
        if multiplies and nameless and not node:  # the runtime numbers them anew, in the order in which they run
            node = next((one.node for one in everything if one.op == op and one.node not in taken), "")
        taken.add(node)
        if op in INT8_KERNELS:
            runs_in = INT8
        elif op in MULTIPLIERS and op not in FLOAT_KERNELS:
            runs_in = precision_of(kernel, "")
        else:
            runs_in = precision_of(kernel, "") or "float32"
        found.append((node, runs_in if node else ""))
    return found
