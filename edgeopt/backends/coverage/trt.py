"""TensorRT-RTX: its dump of layers says which kernels serve which nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from edgeopt.backends.coverage.nodes import Multiplication, multiplications
from edgeopt.backends.coverage.operands import operand_cause
from edgeopt.backends.graphs import Graph
from edgeopt.core.coverage import INT8, Coverage, ExecutedOp

__all__ = ["tensorrt_coverage"]

_UNKNOWN = "TensorRT-RTX keeps it in float; none of edgeopt's rules says why."


def tensorrt_coverage(
    graph: Graph, kernels: Iterable[Mapping[str, Any]], multipliers: frozenset[str], how: str, *, proxy: bool
) -> Coverage | None:
    """What the built engine runs each multiplication of ``graph`` in.

    Args:
        kernels: Name, type, ONNX nodes and int8 or not, of every kernel.
        multipliers: The types of kernels that multiply by weights.
        how: Where the dump comes from.
        proxy: The engine was built for another GPU than the target's.

    Returns:
        None where nothing of the graph is quantized, or there is no dump.
    """
    found, made = multiplications(graph), [kernel for kernel in kernels if kernel["type"] in multipliers]
    if not made or not any(one.planned or one.packed for one in found):
        return None
    in_int8 = {node for kernel in made if kernel["int8"] for node in kernel["onnx"]}
    seen = {node for kernel in made for node in kernel["onnx"]}
    return Coverage(ops=tuple(_executed(one, in_int8, seen) for one in found), how=how, proxy=proxy)


def _executed(one: Multiplication, in_int8: set[str], seen: set[str]) -> ExecutedOp:
    if one.names & in_int8:
        return ExecutedOp(node=one.node, op=one.op, macs=0, runs_in=INT8)
    if not one.names & seen:
        cause = "The engine's layers name no kernel that multiplies for it."
        return ExecutedOp(node=one.node, op=one.op, macs=0, runs_in="", cause=cause)
    cause, fix = operand_cause(one) or _cause(one)
    # The dump names int8 or not; which float it is, it does not say.
    return ExecutedOp(node=one.node, op=one.op, macs=0, runs_in="float", cause=cause, fix=fix)


def _cause(one: Multiplication) -> tuple[str, str]:
    if one.op == "ConvTranspose":
        return "TensorRT has no int8 kernel for this ConvTranspose.", "Resize and Conv instead have int8 kernels."
    if one.op == "Conv" and one.weight is not None and one.weight.axis not in (None, 0):
        return (
            f"The scales of its weight lie along axis {one.weight.axis}, not 0.",
            "Quantize the weight per output channel (axis 0).",
        )
    return _UNKNOWN, ""
