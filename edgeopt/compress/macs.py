"""How much a layer multiplies: what leaving it in float costs is told by its share, not by its name."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.fx import GraphModule, Node

from edgeopt.compress.normalize import CONV_TRANSPOSES, CONVS

__all__ = ["multiplications"]

A = torch.ops.aten
_MATMULS = (A.matmul.default, A.bmm.default, A.mm.default)


def multiplications(graph: GraphModule) -> dict[str, int]:
    """Multiply-accumulates per sample of each convolution, linear layer and matrix product, by node name.

    An op whose shapes, but for the batch, are not known is left out.
    """
    return {node.name: count for node in graph.graph.nodes if (count := _count(node)) is not None}


def _count(node: Node) -> int | None:
    if node.op != "call_function" or node.target not in (*CONVS, *CONV_TRANSPOSES, A.linear.default, *_MATMULS):
        return None
    result, left, right = (_shape(value) for value in (node, *node.args[:2]))
    if result is None or left is None or right is None:
        return None
    if node.target in CONV_TRANSPOSES:  # each input value meets its channel's kernels: weight [in, out / groups, …]
        return _product(left[1:], right[1:])
    if node.target in _MATMULS:
        return _product(result[1:], left[-1:])
    return _product(result[1:], right[1:])


def _shape(value: Any) -> tuple[Any, ...] | None:
    example = value.meta.get("val") if isinstance(value, Node) else None
    return tuple(example.shape) if isinstance(example, torch.Tensor) else None


def _product(*shapes: tuple[Any, ...]) -> int | None:
    sizes = [size for shape in shapes for size in shape]
    return math.prod(sizes) if all(isinstance(size, int) for size in sizes) else None
