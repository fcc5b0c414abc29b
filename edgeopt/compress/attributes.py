"""Constants of a graph: read one, add one, tell which nodes are made of nothing else."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Graph, GraphModule, Interpreter, Node

__all__ = ["SOURCE_KEY", "attribute", "constant", "constant_nodes", "copy_constant", "evaluate", "source_name"]

SOURCE_KEY = "edgeopt_source"  # node.meta of a get_attr: the parameter that a folded constant was made from


def attribute(model: torch.nn.Module, name: str) -> torch.Tensor:
    """The parameter or buffer of that dotted name."""
    owner, _, leaf = name.rpartition(".")
    value: torch.Tensor = getattr(model.get_submodule(owner), leaf)
    return value


def constant(model: GraphModule, name: str, value: torch.Tensor) -> Node:
    """Register a constant and return a get_attr node of it at the graph's insertion point.

    A float becomes a parameter, because torchao assigns parameters where it folds BatchNorms; the rest buffers. Dots in ``name`` become underscores; a number is appended to a name that is taken.
    """
    stem = name.replace(".", "_")
    free, number = stem, 1
    while hasattr(model, free):
        free, number = f"{stem}_{number}", number + 1
    if value.is_floating_point():
        model.register_parameter(free, torch.nn.Parameter(value.detach(), requires_grad=False))
    else:
        model.register_buffer(free, value.detach())
    node = model.graph.get_attr(free)
    node.meta["val"] = _fake(model.graph, value)
    return node


def copy_constant(model: GraphModule, node: Node) -> Node:
    """A get_attr node, at the graph's insertion point, of a copy of the constant that ``node`` reads."""
    copy = constant(model, str(node.target), attribute(model, str(node.target)).clone())
    copy.meta[SOURCE_KEY] = source_name(node)
    return copy


def source_name(node: Node) -> str:
    """The dotted name of the parameter that a get_attr node stands for."""
    return str(node.meta.get(SOURCE_KEY, node.target))


def constant_nodes(graph: Graph) -> set[Node]:
    """Every node whose value depends on no input and on no generator of random numbers."""
    found: set[Node] = set()
    for node in graph.nodes:
        if node.op == "get_attr" or (
            node.op == "call_function"
            and node.all_input_nodes
            and all(source in found for source in node.all_input_nodes)
            and not _is_random(node)
        ):
            found.add(node)
    return found


def evaluate(model: GraphModule, node: Node) -> torch.Tensor:
    """The value of a constant node."""
    known: dict[Node, Any] = {}
    runner = Interpreter(model)
    pending = [node]
    while pending:  # depth first without recursion: a parametrized weight may be a long chain
        current = pending[-1]
        missing = [source for source in current.all_input_nodes if source not in known]
        if missing:
            pending.extend(missing)
            continue
        pending.pop()
        args, kwargs = torch.fx.map_arg((current.args, current.kwargs), known.__getitem__)
        known[current] = getattr(runner, current.op)(current.target, args, kwargs)
    value: torch.Tensor = known[node]
    return value


def _is_random(node: Node) -> bool:
    tags = getattr(node.target, "tags", ())
    return torch.Tag.nondeterministic_seeded in tags


def _fake(graph: Graph, value: torch.Tensor) -> Any:
    """``value`` without its data, in the fake mode of the graph's other nodes (which torchao reads shapes from)."""
    for node in graph.nodes:
        example = node.meta.get("val")
        if hasattr(example, "fake_mode"):
            return example.fake_mode.from_tensor(value, static_shapes=True)
    return value
