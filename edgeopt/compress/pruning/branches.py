"""Residual branches that can go as a whole: x + f(x) becomes x."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch.fx import Graph, Node

from edgeopt.compress.pruning.tracer import Tracer, bound, op_name

__all__ = ["Branch", "drop_branches", "find_branch", "live_nodes"]

_READERS = ("conv1d", "conv2d", "conv3d", "convolution", "linear")
_THROUGH = ("batch_norm", "dropout", "clone", "contiguous")


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """Where a branch ends.

    Attributes:
        add: Name of the addition.
        operand: Which of its two operands the branch is.
    """

    add: str
    operand: int


def find_branch(tracer: Tracer, slices: Any, makers: Sequence[str]) -> tuple[Branch, ...]:
    """The branches that give nothing once all units of a group are gone; empty where that is not all they do.

    Args:
        tracer: After its run.
        slices: The group's, as ``ChannelGroup`` has them.
        makers: Dotted names of the weights that make the group's units.
    """
    ends = []
    for node in tracer.model.graph.nodes:
        if node.op != "call_function" or op_name(node) not in _READERS:
            continue
        weight = bound(node)["weight"]
        axis = 1
        key = (str(weight.target), axis) if isinstance(weight, Node) and weight.op == "get_attr" else None
        if key is None or key not in slices or key not in tracer.reads:
            continue
        if slices[key].size == tracer.axes(weight)[axis][0].size and (end := _end(node)) is not None:
            ends.append(end)
    if not ends:
        return ()
    live = live_nodes(tracer.model.graph, ends)
    alive = {str(node.target) for node in live if node.op == "get_attr"}
    return () if alive.intersection(makers) else tuple(ends)


def drop_branches(graph: Graph, branches: Iterable[Branch]) -> None:
    """In place: each addition gives its other operand; what only the branches needed is gone."""
    nodes = {node.name: node for node in graph.nodes}
    for branch in branches:
        add = nodes[branch.add]
        other = add.args[1 - branch.operand]
        if not isinstance(other, Node):
            raise TypeError("an addition of two tensors")
        add.replace_all_uses_with(other)
        graph.erase_node(add)
    graph.eliminate_dead_code()


def live_nodes(graph: Graph, branches: Iterable[Branch]) -> set[Node]:
    """What the outputs need without the branches."""
    cut = {branch.add: branch.operand for branch in branches}
    live: set[Node] = set()
    pending = [node for node in graph.nodes if node.op == "output"]
    while pending:
        node = pending.pop()
        if node in live:
            continue
        live.add(node)
        sources = [node.args[1 - cut[node.name]]] if node.name in cut else node.all_input_nodes
        pending.extend(source for source in sources if isinstance(source, Node))
    return live


def _end(node: Node) -> Branch | None:
    """The addition that a layer's output runs into through nothing but its BatchNorm."""
    while len(node.users) == 1:
        user = next(iter(node.users))
        if user.op != "call_function":
            return None
        if op_name(user) == "add":
            return _operand(user, node)
        if op_name(user) not in _THROUGH:
            return None
        node = user
    return None


def _operand(add: Node, node: Node) -> Branch | None:
    if len(add.args) < 2 or add.kwargs or not all(isinstance(arg, Node) for arg in add.args[:2]):
        return None
    shapes = [tuple(arg.meta["val"].shape) for arg in (*add.args[:2], add) if isinstance(arg, Node)]
    if shapes[0] != shapes[1] or shapes[0] != shapes[2] or add.args[0] is add.args[1]:
        return None
    return Branch(add=add.name, operand=add.args.index(node))
