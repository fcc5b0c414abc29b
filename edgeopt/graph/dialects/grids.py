"""Calibrated ranges on a runtime's own grid: the same points, or finer ones, never coarser."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from edgeopt.core.errors import GraphError
from edgeopt.core.events import Event
from edgeopt.core.grids import LEVELS, finer_grid, reach_of
from edgeopt.graph.passes.fold_pad import is_zero_pad
from edgeopt.graph.passes.hoist_quantize import MOVES, is_moving_pad
from edgeopt.graph.qdq import Point, activation_points, array_of, other_quantizers, set_grid, weighted_nodes

__all__ = [
    "float_on_purpose",
    "is_nonnegative",
    "left_alone",
    "make_symmetric",
    "regrid",
    "unquantized_outputs",
    "upper_bound",
]

_NONNEGATIVE = frozenset({"Relu", "Softmax", "Sigmoid", "HardSigmoid", "Abs", "Sqrt", "Exp", "ReduceL2"})
_KEEPS_SIGN = MOVES | {
    "AveragePool",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "ReduceMean",
    "ReduceMax",
    "ReduceSum",
    "Identity",
    "Expand",
    "Gather",
    "QuantizeLinear",
    "DequantizeLinear",
}
_KEEPS_BOUND = MOVES | {"GlobalMaxPool", "ReduceMax", "Identity", "Expand", "Gather"}
_POINTWISE = frozenset({"Mul", "Add"})  # of two non-negative tensors


def regrid(model: ir.Model, dtype: str, keep: Callable[[Point], bool] = lambda _: False) -> bool:
    """Write every activation of ``model`` as ``dtype``, symmetric int8 ones finer where their range allows.

    What is uint8 already keeps its points. A grid of int8 in the neutral graph has step s and reaches from
    −128·s to 127·s. Where the tensor fills a part [low, high] of
    that (nothing below zero or above a bound, by the graph's structure; or what calibration saw, and a margin), the new
    step is (high − low)/255 < s, with the zero point that puts zero on a point exactly. Elsewhere the points stay, and
    only their encoding changes.

    Args:
        dtype: ``uint8``, or ``int8`` for the same grids moved down by 128.
        keep: Which tensors stay symmetric int8 where their grid would have a zero point other than 0 (their readers'
            kernels are for zero points of 0).

    Returns:
        Whether all points stayed the same.

    Raises:
        GraphError: An activation is quantized in a way that no neutral graph has.
    """
    same = True
    shift = 0 if dtype == "uint8" else 128
    grids = []
    for point in activation_points(model.graph):
        if point.dtype == "int8" and point.zero_point != 0:
            raise GraphError(
                f"{point.quantize.name!r} is no point of a neutral graph: symmetric int8, or uint8.",
                got=f"{point.dtype}, zero point {point.zero_point}",
                fix="A dialect starts from the neutral graph that export writes, not from another dialect.",
            )
        scale, zero = _grid(point)
        if zero == 0 or not keep(point):
            grids.append((point, scale, zero))
    for point, scale, zero in grids:
        same = same and scale == point.scale
        set_grid(model.graph, point, scale, zero - shift, dtype)
    return same


def make_symmetric(model: ir.Model) -> int:
    """Write what is uint8 as symmetric int8 of the same reach, for a runtime that has nothing else.

    Returns:
        How many tensors that is; their step grows, at most to twice what it was.
    """
    points = [
        point
        for point in activation_points(model.graph)
        if point.dtype == "uint8" and all(n.inputs[2:] for n in (point.quantize, *point.dequantize))
    ]
    for point in points:
        reach = max(point.zero_point, LEVELS - point.zero_point)
        set_grid(model.graph, point, np.float32(float(point.scale) * reach / 127), 0, "int8")
    return len(points)


def left_alone(model: ir.Model) -> list[Event]:
    """One event per QuantizeLinear that ``regrid`` does not rewrite, as more than DequantizeLinear reads it."""
    return [
        Event(
            kind="fallback",
            stage="dialect",
            message="This tensor keeps its encoding: it is not read by DequantizeLinear alone, or not 8 bits per tensor.",
            node=node.name,
        )
        for node in other_quantizers(model.graph)
    ]


def is_nonnegative(value: ir.Value | None, depth: int = 64) -> bool:
    """Whether the graph's structure alone says that ``value`` is never below zero."""
    node = value.producer() if value is not None else None
    if node is None:
        constant = array_of(value)
        return constant is not None and bool((constant >= 0).all())
    if depth == 0:
        return False
    if node.op_type in _NONNEGATIVE or _is_even_power(node):
        return True
    if node.op_type == "Clip":
        low = array_of(node.inputs[1]) if len(node.inputs) > 1 else None
        return (low is not None and low.size == 1 and float(low.reshape(-1)[0]) >= 0) or is_nonnegative(
            node.inputs[0], depth - 1
        )
    if node.op_type == "Concat" or node.op_type in _POINTWISE:
        return all(is_nonnegative(source, depth - 1) for source in node.inputs)
    return (node.op_type in _KEEPS_SIGN or is_moving_pad(node)) and is_nonnegative(node.inputs[0], depth - 1)


def _is_even_power(node: ir.Node) -> bool:
    """Whether a node multiplies a tensor by itself, or raises it to an even power."""
    if node.op_type == "Mul":
        return node.inputs[0] is node.inputs[1]
    exponent = array_of(node.inputs[1]) if node.op_type == "Pow" else None
    return exponent is not None and exponent.size == 1 and float(exponent.reshape(-1)[0]) % 2 == 0


def upper_bound(value: ir.Value | None, depth: int = 64) -> float:
    """What ``value`` never exceeds by the graph's structure alone; infinity where it says nothing."""
    node = value.producer() if value is not None else None
    if node is None or depth == 0:
        return math.inf
    if node.op_type in ("Softmax", "Sigmoid", "HardSigmoid"):
        return 1.0
    if node.op_type == "Clip":
        limit = array_of(node.inputs[2]) if len(node.inputs) > 2 else None
        return math.inf if limit is None or limit.size != 1 else float(limit.reshape(-1)[0])
    if node.op_type == "Concat":
        return max(upper_bound(source, depth - 1) for source in node.inputs)
    if node.op_type not in _KEEPS_BOUND and not is_moving_pad(node):
        return math.inf
    bound = upper_bound(node.inputs[0], depth - 1)
    return max(0.0, bound) if is_zero_pad(node) else bound


def unquantized_outputs(model: ir.Model, runtime: str) -> list[Event]:
    """One event per convolution that is quantized but that ONNX Runtime leaves in float, as no Q follows it."""
    return [
        Event(
            kind="fallback",
            stage="dialect",
            message=f"{runtime} runs this {node.op_type} in float: its output is not quantized.",
            node=node.metadata_props.get("edgeopt.node", node.name),
        )
        for node, _, dequantize in weighted_nodes(model.graph)
        if dequantize is not None and node.op_type == "Conv" and not _reaches_quantize(node)
    ]


def float_on_purpose(nodes: Sequence[ir.Node]) -> list[Event]:
    """One event per layer that a dialect writes in float on int8 weights."""
    return [
        Event(
            kind="note",
            stage="dialect",
            message=f"This {node.op_type} runs in float on int8 weights, as this form of the graph has it.",
            node=node.metadata_props.get("edgeopt.node", node.name),
        )
        for node in nodes
    ]


def _grid(point: Point) -> tuple[np.float32, int]:
    """Step and zero point (as uint8) for ``point``: finer where its range allows, else the same points."""
    if point.dtype == "uint8":
        return point.scale, point.zero_point
    step = float(point.scale)
    low, high = -128.5 * step, 127.5 * step
    if point.low is not None and point.high is not None:
        low, high = reach_of(point.low, point.high, step)
    bound = upper_bound(point.tensor)
    if is_nonnegative(point.tensor):
        return _from_zero(min(max(high, 0.0), bound), bound, point.scale)
    return finer_grid(low, min(max(high, 0.0), bound), step) or (point.scale, 128)


def _from_zero(high: float, bound: float, widest: np.float32) -> tuple[np.float32, int]:
    """The grid over [0, high] for what never exceeds ``bound``; half of the symmetric one where it would be no finer."""
    scale = np.float32(high / LEVELS)
    if high == bound:
        while np.float32(scale * np.float32(LEVELS)) > np.float32(bound):
            scale = np.nextafter(scale, np.float32(0))  # ReLU6 folds into Q only if Q's range lies inside [0, 6]
    return (scale, 0) if np.finfo(np.float32).tiny < scale < widest else (widest, 128)


def _reaches_quantize(node: ir.Node) -> bool:
    value = node.outputs[0]
    readers = value.consumers()
    if len(readers) == 1 and readers[0].op_type in ("Relu", "Clip"):
        readers = readers[0].outputs[0].consumers()
    return bool(readers) and all(reader.op_type == "QuantizeLinear" for reader in readers)
