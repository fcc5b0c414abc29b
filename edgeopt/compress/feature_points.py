"""Where features are taken: outputs of layers and of whole modules, by the names that the user knows them by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch.fx import GraphModule, Node

from edgeopt.compress.layer_names import check_patterns
from edgeopt.compress.layers import named_layers

__all__ = ["Point", "feature_points", "match_points"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One place in both nets: its name, and the names of the nodes that compute it in each."""

    name: str
    student: str
    teacher: str


def match_points(patterns: Sequence[str], student: GraphModule, teacher: GraphModule) -> tuple[Point, ...]:
    """Every place that a pattern names and both nets have, in the student's order, each once.

    Raises:
        RecipeError: A pattern matches none; the nearest names are listed.
    """
    mine, theirs = feature_points(student), feature_points(teacher)
    common = [name for name, node in mine.items() if name in theirs and _axes(node) == _axes(theirs[name])]
    check_patterns("the distil step's features", patterns, common)
    places = {
        (mine[name].name, theirs[name].name): name
        for name in reversed(common)  # of a place with several names the first one is told
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    }
    order = {node.name: number for number, node in enumerate(student.graph.nodes)}
    found = [Point(name=name, student=a, teacher=b) for (a, b), name in places.items()]
    return tuple(sorted(found, key=lambda point: order[point.student]))


def feature_points(graph: GraphModule) -> dict[str, Node]:
    """Name → the node that computes it: each layer, as ``find_layers`` names them; each module, by the last of its nodes."""
    found = {name: node for node, _, name in named_layers(graph) if _axes(node) > 1}
    last: dict[str, Node] = {}
    for node in graph.graph.nodes:
        if node.op == "call_function" and node.users and _axes(node) > 1:
            for path, _ in (node.meta.get("nn_module_stack") or {}).values():
                last[str(path)] = node
    return found | {path: node for path, node in last.items() if path and path not in found}


def _axes(node: Node) -> int:
    """How many axes a node's value has; 0 where it is no tensor of floats."""
    value = node.meta.get("val")
    return value.ndim if isinstance(value, torch.Tensor) and value.is_floating_point() else 0
