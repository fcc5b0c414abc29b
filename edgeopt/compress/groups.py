"""Layers whose precision must change together, as the graph ties them, with what each group computes and stores."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node

from edgeopt.compress.attributes import attribute, source_name
from edgeopt.compress.layers import Layer
from edgeopt.compress.normalize import BATCH_NORMS
from edgeopt.compress.outputs import absorbed

__all__ = ["Group", "find_groups"]

A = torch.ops.aten
_BATCH = 2  # stands for every symbolic size, and is divided out
_WALLS = (
    A.layer_norm.default,
    A.add.Tensor,
    A.add_.Tensor,
    *BATCH_NORMS,
)  # an attention's q, k and v do not cross them


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Layers that are all in one precision.

    Attributes:
        name: That of the member with the most MACs, and how many more there are: ``blocks.1.second +1``.
        layers: Their names, in the graph's order.
        ops: What they compute, each once.
        macs: Multiply-accumulates per sample.
        weights: How many weight values; without biases.
    """

    name: str
    layers: tuple[str, ...]
    ops: tuple[str, ...]
    macs: int
    weights: int


def find_groups(model: GraphModule, layers: Sequence[Layer]) -> tuple[Group, ...]:
    """The groups of the quantized layers, in the graph's order.

    Tied are: a residual addition and the convolutions that make its operands (in float, the addition takes their
    kernels out of int8); a pool and what feeds it; weighted layers that read the same tensor (they share one Q); the
    products of one attention with its q, k and v; layers with one weight.

    Args:
        model: The normalized graph that ``layers`` were found in.
        layers: As ``find_layers`` gives them.
    """
    nodes = {node.name: node for node in model.graph.nodes}
    quantized = [layer for layer in layers if layer.quantized]
    by_node = {nodes[layer.node]: layer for layer in quantized}
    parent = {layer.node: layer.node for layer in quantized}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for one, other in _ties(nodes, quantized, by_node):
        first, second = root(one.node), root(other.node)
        parent[second] = first
    members: dict[str, list[Layer]] = {}
    for layer in quantized:
        members.setdefault(root(layer.node), []).append(layer)
    return tuple(_group(model, nodes, found) for found in members.values())


def _ties(
    nodes: dict[str, Node], quantized: Sequence[Layer], by_node: dict[Node, Layer]
) -> Iterator[tuple[Layer, Layer]]:
    ends = {absorbed(node): layer for node, layer in by_node.items()}
    readers: dict[Any, Layer] = {}
    weights: dict[str, Layer] = {}
    for layer in quantized:
        node = nodes[layer.node]
        if layer.op in ("add", "pool"):
            for source in node.args[:2]:
                maker = _maker(source, ends, by_node)
                if (maker is not None and maker.op != "add") or (maker is not None and layer.op == "pool"):
                    yield layer, maker
        if layer.op == "matmul":
            for source in node.args[:2]:
                yield from ((layer, maker) for maker in _makers_behind(source, by_node))
        if layer.weighted:
            yield layer, readers.setdefault(node.args[0], layer)
            weight = node.args[1]
            if isinstance(weight, Node) and weight.op == "get_attr":
                yield layer, weights.setdefault(source_name(weight), layer)


def _maker(source: Any, ends: dict[Node, Layer], by_node: dict[Node, Layer]) -> Layer | None:
    """The layer whose output (past what it absorbs) is ``source``."""
    while isinstance(source, Node):
        found = ends.get(source) or by_node.get(source)
        if found is not None or source.op != "call_function" or len(source.all_input_nodes) == 0:
            return found
        if source.target not in (
            *BATCH_NORMS,
            A.relu.default,
            A.relu_.default,
            A.hardtanh.default,
            A.hardtanh_.default,
        ):
            return None
        source = source.args[0]
    return None


def _makers_behind(source: Any, by_node: dict[Node, Layer]) -> Iterator[Layer]:
    """The products and linears that a factor is made of, across reshapes, scaling and softmax."""
    pending, seen = [source], set()
    while pending:
        node = pending.pop()
        if not isinstance(node, Node) or node in seen or node.op != "call_function" or node.target in _WALLS:
            continue
        seen.add(node)
        if (layer := by_node.get(node)) is not None:
            if layer.op in ("linear", "matmul"):
                yield layer
            continue
        pending += node.all_input_nodes


def _group(model: GraphModule, nodes: dict[str, Node], members: Sequence[Layer]) -> Group:
    macs = {layer.name: _macs(nodes[layer.node], layer) for layer in members}
    largest = max(members, key=lambda layer: macs[layer.name])
    more = len(members) - 1
    return Group(
        name=largest.name + (f" +{more}" if more else ""),
        layers=tuple(layer.name for layer in members),
        ops=tuple(dict.fromkeys(layer.op for layer in members)),
        macs=sum(macs.values()),
        weights=sum(_weights(model, nodes[layer.node]) for layer in members if layer.weighted),
    )


def _macs(node: Node, layer: Layer) -> int:
    """Per sample; symbolic sizes other than the batch count as if they were the batch (2)."""
    if layer.op in ("add", "pool"):
        return 0
    out, first, second = (_shape(n) for n in (node, node.args[0], node.args[1]))
    if layer.op == "matmul":
        inner = first[-1]
    elif layer.op == "conv_transpose":  # each input value meets the weight's columns once
        return math.prod(first) * math.prod(second[1:]) // _BATCH
    else:
        inner = math.prod(second[1:])
    return math.prod(out) * inner // (_BATCH if _is_symbolic(node) else max(1, first[0]))


def _shape(node: Any) -> tuple[int, ...]:
    return tuple(_size(size) for size in node.meta["val"].shape)


def _size(size: Any) -> int:
    if isinstance(size, int):
        return size
    expression = size.node.expr
    return int(expression.subs(dict.fromkeys(expression.free_symbols, _BATCH)))


def _is_symbolic(node: Node) -> bool:
    return any(not isinstance(size, int) for size in node.meta["val"].shape)


def _weights(model: GraphModule, node: Node) -> int:
    weight = node.args[1]
    return attribute(model, str(weight.target)).numel() if isinstance(weight, Node) else 0
