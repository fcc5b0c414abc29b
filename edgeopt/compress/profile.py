"""What each layer of a program costs: multiplications, weights, activations; and the memory that the whole needs."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from edgeopt.compress.attributes import attribute, constant_nodes, source_name
from edgeopt.compress.liveness import Memory, find_buffers, memory_of, storage_of
from edgeopt.compress.macs import macs_of
from edgeopt.compress.walk import choose_sizes, walk
from edgeopt.core.spec import TensorSpec

__all__ = ["LayerProfile", "Profile", "profile"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerProfile:
    """One op that computes something; views and constants are none.

    Attributes:
        name: The module that computes it, as the user knows it; with the op where that module computes several.
        op: As PyTorch calls it: ``conv2d``, ``batch_norm``, ``add_``.
        node: Its fx node's name.
        output_shape: Of its first output.
        macs: Per sample; None where it multiplies nothing that is counted.
        parameters: Trained values that it is the first to read.
        weight_bytes: Of these, and of the buffers that it is the first to read.
        output_bytes: Of all its outputs; for the whole batch.
        live_bytes: Of activations while it runs; for the whole batch.
    """

    name: str
    op: str
    node: str
    output_shape: tuple[int, ...]
    macs: int | None
    parameters: int
    weight_bytes: int
    output_bytes: int
    live_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A program at one set of sizes.

    Attributes:
        layers: In the graph's order.
        sizes: Size by name of each open dimension, as it was chosen.
        batch: Samples that the sizes are of; ``macs`` are per sample whatever it is.
        memory: Of activations.
        names: By node that makes a piece of ``memory``: its layer's name, or the input's.
        peak_layer: The layer that runs at the peak; None where the inputs alone are the most.
        weight_bytes: Of all parameters and buffers that the graph reads, each once.
    """

    layers: tuple[LayerProfile, ...]
    sizes: Mapping[str, int]
    batch: int
    memory: Memory
    names: Mapping[str, str]
    peak_layer: str | None
    weight_bytes: int


def profile(program: ExportedProgram, specs: Sequence[TensorSpec], sizes: Mapping[str, int] | None = None) -> Profile:
    """Follow a program at batch 1 (a fixed batch as it is), without running it.

    Args:
        program: In eval mode; not changed.
        specs: Of its inputs, in order.
        sizes: Of open dimensions, by name; else those that it was exported with.

    Raises:
        ModelError: A size is not one that the model takes, or a shape depends on values.
    """
    shapes, chosen = choose_sizes(program, specs, sizes or {})
    graph = program.module(check_guards=False)
    values = walk(graph, shapes)
    batch = next((shape[0] for shape in shapes if shape), 1)
    buffers = find_buffers(graph.graph, values)
    memory = memory_of(buffers, len(graph.graph.nodes))
    constants = constant_nodes(graph.graph)
    place = {node: index for index, node in enumerate(graph.graph.nodes)}
    computing = {n: None for n in graph.graph.nodes if n not in constants and _computes(n, values)}
    names = dict(zip((node.name for node in computing), _names(list(computing)), strict=True))
    weights = _Weights(graph, computing)
    layers = []
    for node in computing:
        parameters, weight_bytes = weights.of(node)
        tensors = [leaf for leaf in pytree.tree_leaves(values[node.name]) if isinstance(leaf, torch.Tensor)]
        macs = macs_of(node, lambda value: _shape(value, values))
        layers.append(
            LayerProfile(
                name=names[node.name],
                op=_op(node),
                node=node.name,
                output_shape=tuple(tensors[0].shape),
                macs=None if macs is None else round(macs / batch),
                parameters=parameters,
                weight_bytes=weight_bytes,
                output_bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
                live_bytes=memory.live[place[node]],
            )
        )
    inputs = zip(graph.graph.find_nodes(op="placeholder"), specs, strict=False)
    at = next((node.name for node, index in place.items() if index == memory.at), "")
    return Profile(
        layers=tuple(layers),
        sizes=chosen,
        batch=batch,
        memory=memory,
        names=names | {node.name: spec.name for node, spec in inputs},
        peak_layer=names.get(at),
        weight_bytes=sum(layer.weight_bytes for layer in layers),
    )


def _computes(node: Node, values: Mapping[str, Any]) -> bool:
    """Whether a node makes new values: in a tensor of its own, or in place."""
    if node.op != "call_function" or node.target is operator.getitem:
        return False
    made = _storages(values[node.name])
    if not made:
        return False
    schema = getattr(node.target, "_schema", None)
    read = set().union(*(_storages(values.get(source.name)) for source in node.all_input_nodes))
    return bool(schema is not None and schema.is_mutable) or not made <= read


def _storages(value: Any) -> set[int]:
    return {storage_of(leaf)[0] for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)}


def _shape(value: Any, values: Mapping[str, Any]) -> tuple[int, ...] | None:
    found = values.get(value.name) if isinstance(value, Node) else None
    return tuple(found.shape) if isinstance(found, torch.Tensor) else None


class _Weights:
    """Counts each parameter and buffer once, where it is first read."""

    def __init__(self, graph: GraphModule, computing: Mapping[Node, None]) -> None:
        self._graph, self._computing = graph, computing
        self._seen: set[int] = set()

    def of(self, node: Node) -> tuple[int, int]:
        """Trained values, and bytes, that ``node`` is the first to read."""
        parameters = size = 0
        for source in self._sources(node):
            tensor = attribute(self._graph, str(source.target))
            if not isinstance(tensor, torch.Tensor) or tensor.data_ptr() in self._seen:
                continue
            self._seen.add(tensor.data_ptr())
            parameters += tensor.numel() if isinstance(tensor, torch.nn.Parameter) else 0
            size += tensor.numel() * tensor.element_size()
        return parameters, size

    def _sources(self, node: Node) -> list[Node]:
        """All get_attr nodes that it reads itself, through views, or through what is computed of constants alone."""
        found: dict[Node, None] = {}
        pending = list(reversed(node.all_input_nodes))
        while pending:
            source = pending.pop()
            if source not in found and source not in self._computing:
                found[source] = None
                pending += reversed(source.all_input_nodes)
        return [source for source in found if source.op == "get_attr"]


def _op(node: Node) -> str:
    packet = getattr(node.target, "overloadpacket", node.target)
    return str(getattr(packet, "__name__", packet)).rpartition(".")[2]


def _names(nodes: Sequence[Node]) -> list[str]:
    paths = [_path(node) for node in nodes]
    alone = {path for path, count in Counter(paths).items() if count == 1}
    parents = {path[:end] for path in paths for end, letter in enumerate(path) if letter == "."}
    names: list[str] = []
    taken: set[str] = set()
    for node, path in zip(nodes, paths, strict=True):
        stem = path if path in alone and path not in parents else f"{path}.{_op(node)}".strip(".")
        stem = stem if path else node.name
        name, number = stem, 2
        while name in taken:
            name, number = f"{stem}.{number}", number + 1
        taken.add(name)
        names.append(name)
    return names


def _path(node: Node) -> str:
    """The module whose weight it reads, where it is inside the innermost one that computes it; else that one."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = str(stack[-1][0]) if stack else ""
    schema = getattr(node.target, "_schema", None)
    weight = node.args[1] if len(node.args) > 1 else None
    named = schema is not None and len(schema.arguments) > 1 and schema.arguments[1].name == "weight"
    if named and isinstance(weight, Node) and weight.op == "get_attr":
        owner = source_name(weight).partition(".parametrizations.")[0].removesuffix("weight").rstrip("._")
        if owner and (not path or owner.startswith(f"{path}.")):
            return owner
    return path
