"""How much activation memory a graph needs: what is live at each step of its schedule.

A tensor is live from the step that makes it to the last step that reads it or a view of it; an input from the start; an
output to the end. A view, and an op that writes in place, makes no new tensor. Weights, what an op needs for itself
inside (the columns of a convolution, say) and what a runtime's fusion saves are not counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch.fx import Graph
from torch.utils import _pytree as pytree

from edgeopt.compress.attributes import constant_nodes

__all__ = ["Buffer", "Memory", "StorageOf", "find_buffers", "memory_of", "storage_of"]

StorageOf = Callable[[torch.Tensor], tuple[int, int]]
"""What tells a tensor's storage from every other one, and its size in bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffer:
    """A piece of memory for activations.

    Attributes:
        node: The first that has it as its value.
        size: In bytes.
        born: The step that makes it: the node's place in the graph.
        dies: The last step that needs it; at least ``born``.
    """

    node: str
    size: int
    born: int
    dies: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What a schedule needs.

    Attributes:
        live: Bytes that are live during each step.
        peak: The most of them, in bytes.
        at: The first step that needs so much.
        buffers: What is live then, the largest first.
    """

    live: tuple[int, ...]
    peak: int
    at: int
    buffers: tuple[Buffer, ...]


def storage_of(tensor: torch.Tensor) -> tuple[int, int]:
    """What tells a tensor's storage from every other one, and its size in bytes."""
    storage = tensor.untyped_storage()
    return storage._cdata, storage.nbytes()  # noqa: SLF001


def find_buffers(graph: Graph, values: Mapping[str, Any], storage_of: StorageOf = storage_of) -> tuple[Buffer, ...]:
    """The memory of all activations of a graph, in the order of their making.

    Args:
        graph: Parameters and buffers are get_attr nodes; they and what is made of them alone take no part.
        values: What each node gave, by name; all still held, so that equal storages are the same one.
        storage_of: Identity and size of a tensor's storage.
    """
    place = {node: index for index, node in enumerate(graph.nodes)}
    constants = constant_nodes(graph)
    weights = {key for node in constants for key, _ in _storages(values.get(node.name), storage_of)}
    found: dict[int, Buffer] = {}
    for node, index in place.items():
        if node in constants or node.op == "output":
            continue
        last = max([index, *(place[reader] for reader in node.users)])
        for key, size in _storages(values.get(node.name), storage_of):
            if key in weights:
                continue
            known = found.get(key)
            born, name = (index, node.name) if known is None else (known.born, known.node)
            found[key] = Buffer(node=name, size=size, born=born, dies=max(last, known.dies if known else last))
    return tuple(sorted(found.values(), key=lambda buffer: buffer.born))


def memory_of(buffers: Sequence[Buffer], steps: int) -> Memory:
    """Add up what is live at each of so many steps, in linear time."""
    change = [0] * (steps + 1)
    for buffer in buffers:
        change[buffer.born] += buffer.size
        change[buffer.dies + 1] -= buffer.size
    live = tuple(accumulate(change))[:steps]
    peak = max(live, default=0)
    at = live.index(peak) if live else 0
    there = [buffer for buffer in buffers if buffer.born <= at <= buffer.dies]
    return Memory(live=live, peak=peak, at=at, buffers=tuple(sorted(there, key=lambda buffer: -buffer.size)))


def _storages(value: Any, storage_of: StorageOf) -> list[tuple[int, int]]:
    return [storage_of(leaf) for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]
