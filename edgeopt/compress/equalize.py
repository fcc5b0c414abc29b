"""Cross-layer equalization: two layers in a row share out the ranges of the channels between them.

Source: M. Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", section 4.1:
f(s·x) = s·f(x) for s > 0 lets channel i of the first layer be divided by sᵢ = √(r₁ᵢ·r₂ᵢ)/r₂ᵢ and multiplied again in the
second, r being the channel's largest weight in each. It holds for ReLU, PReLU and no activation, not for ReLU6: a pair with
one between is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import GraphModule, Node

from edgeopt.compress.attributes import attribute, copy_constant
from edgeopt.compress.normalize import CONVS

__all__ = ["equalize"]

A = torch.ops.aten
_LINEAR = A.linear.default
# What scales with its input, value by value; then what mixes the positions of one channel, where those are the last axes.
_VALUES = (A.relu.default, A.relu_.default, A.leaky_relu.default, A.prelu.default, A.dropout.default, A.clone.default)
_POSITIONS = (
    *(A.max_pool1d.default, A.max_pool2d.default, A.avg_pool1d.default, A.avg_pool2d.default),
    *(A.adaptive_avg_pool1d.default, A.adaptive_avg_pool2d.default, A.mean.dim),
)
_PASSES, _CLOSE = 20, 1e-3


def equalize(graph: GraphModule) -> int:
    """Equalize every pair, over and over until nothing moves; the graph computes what it did.

    Args:
        graph: Normalized, BatchNorms folded; changed in place.

    Returns:
        How many pairs there were.
    """
    pairs = list(_pairs(graph))
    for first, second in pairs:
        _own(graph, first, 1)
        _own(graph, first, 2)
        _own(graph, second, 1)
    for _ in range(_PASSES):
        if not pairs or max(_share_out(graph, first, second) for first, second in pairs) < _CLOSE:
            break
    graph.recompile()
    return len(pairs)


def _pairs(graph: GraphModule) -> Iterator[tuple[Node, Node]]:
    for node in graph.graph.nodes:
        if (
            node.target in (*CONVS, _LINEAR)
            and _is_constant(node.args[1])
            and _groups(node) in (1, _outputs(graph, node))
        ):
            second = _next(node)
            if second is not None and _fits(graph, node, second):
                yield node, second


def _next(node: Node) -> Node | None:
    """The layer that alone reads what ``node`` gives, past what scales with it."""
    current = node
    while len(current.users) == 1:
        current = next(iter(current.users))
        if current.target in (*CONVS, _LINEAR):
            return current if current.args[0] is not current.args[1] and _is_constant(current.args[1]) else None
        if current.target not in _VALUES and not (node.target in CONVS and _pools(current)):
            return None
    return None


def _pools(node: Node) -> bool:
    """Whether a node behind a convolution mixes positions, and never channels."""
    if node.target is not A.mean.dim:
        return node.target in _POSITIONS
    ndim, dims = node.args[0].meta["val"].ndim, node.args[1]  # type: ignore[union-attr]
    return bool(dims) and all(int(str(dim)) % ndim > 1 for dim in dims)  # type: ignore[union-attr]


def _fits(graph: GraphModule, first: Node, second: Node) -> bool:
    """Whether the second layer has one input channel for each of the first's outputs."""
    weight = attribute(graph, str(second.args[1].target))  # type: ignore[union-attr]
    channels, same_kind = _outputs(graph, first), (first.target is _LINEAR) == (second.target is _LINEAR)
    depthwise = _groups(second) == channels and weight.shape[0] == channels
    return same_kind and (depthwise or (_groups(second) == 1 and weight.shape[1] == channels))


def _share_out(graph: GraphModule, first: Node, second: Node) -> float:
    """Move one pair's scales; returns the largest |log s|."""
    one, two = (attribute(graph, str(node.args[1].target)) for node in (first, second))  # type: ignore[union-attr]
    depthwise = _groups(second) > 1
    before = one.flatten(1).abs().amax(1)
    after = two.flatten(1).abs().amax(1) if depthwise else two.transpose(0, 1).flatten(1).abs().amax(1)
    live = (before > 0) & (after > 0)
    scale = torch.where(live, torch.sqrt(before * after) / after.clamp_min(torch.finfo(after.dtype).tiny), 1.0)
    with torch.no_grad():
        one.div_(scale.reshape(-1, *[1] * (one.ndim - 1)))
        if len(first.args) > 2 and isinstance(first.args[2], Node):
            attribute(graph, str(first.args[2].target)).div_(scale)
        shape = (-1, *[1] * (two.ndim - 1)) if depthwise else (1, -1, *[1] * (two.ndim - 2))
        two.mul_(scale.reshape(shape))
    return float(scale.log().abs().max())


def _own(graph: GraphModule, layer: Node, position: int) -> None:
    """A constant that no other layer reads, to be changed."""
    operand = layer.args[position] if len(layer.args) > position else None
    if isinstance(operand, Node):
        with graph.graph.inserting_before(layer):
            layer.update_arg(position, copy_constant(graph, operand))


def _is_constant(operand: Any) -> bool:
    return isinstance(operand, Node) and operand.op == "get_attr"


def _groups(node: Node) -> int:
    return int(str(node.args[6])) if node.target is not _LINEAR and len(node.args) > 6 else 1


def _outputs(graph: GraphModule, node: Node) -> int:
    return int(attribute(graph, str(node.args[1].target)).shape[0])  # type: ignore[union-attr]
