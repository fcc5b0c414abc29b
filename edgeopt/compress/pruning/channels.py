"""What can be removed from an exported program: channels, heads, hidden units, in groups that share their layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.export import ExportedProgram
from torch.fx import GraphModule

from edgeopt.compress.pruning.branches import Branch, find_branch, live_nodes
from edgeopt.compress.pruning.layer_rules import LAYER_RULES
from edgeopt.compress.pruning.layout import LAYOUT_RULES
from edgeopt.compress.pruning.tracer import Tracer
from edgeopt.compress.pruning.weightless_rules import POINTWISE, WEIGHTLESS_RULES

__all__ = ["ChannelGroup", "ChannelMap", "Pinned", "Removed", "trace_channels"]

Removed = Mapping[str, Sequence[int]]
"""By group: the units that are to go, as indices from 0 to ``units - 1``."""

_RULES = {**LAYER_RULES, **WEIGHTLESS_RULES, **LAYOUT_RULES}
_ATTEMPTS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelGroup:
    """Units of the same kind: each lies in the same tensors, so that any of them can go without the others.

    Attributes:
        name: Of the first layer that makes them, and how many more do: ``blocks.1.first.0 +2``.
        layers: All that make them.
        units: How many there are.
        width: Channels of a layer that reads them: a head of 16 channels is one unit and 16 of the width.
        slices: By tensor's dotted name and axis: for each unit the indices that go with it, int64 [units, n].
        exact: Whether the pruned model computes what the original does with these units at zero. A LayerNorm over
            them normalizes what is left instead.
    """

    name: str
    layers: tuple[str, ...]
    units: int
    width: int
    slices: Mapping[tuple[str, int], Any]
    exact: bool
    branches: tuple[Branch, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned:
    """A layer whose outputs stay, and why."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelMap:
    """All that was found.

    Attributes:
        model: The program's graph; a get_attr node for each tensor.
        groups: In the graph's order.
        pinned: Layers of which nothing can be removed.
        tracer: The walk that found it: each node's axes.
        unit_of: By root unit: its group's name and its index there.
    """

    model: GraphModule
    groups: tuple[ChannelGroup, ...]
    pinned: tuple[Pinned, ...]
    tracer: Tracer
    unit_of: Mapping[int, tuple[str, int]]

    def group(self, name: str) -> ChannelGroup:
        """The group of that name."""
        return next(group for group in self.groups if group.name == name)

    def marks(self, removed: Removed) -> Any:
        """bool, by every unit of the tracer: whether it goes."""
        roots = self.tracer.units.roots()
        gone = {(name, int(index)) for name, indices in removed.items() for index in indices}
        marked = np.zeros(len(roots), bool)
        for root, place in self.unit_of.items():
            marked[root] = place in gone
        return marked[roots]

    def gone(self, removed: Removed) -> tuple[Branch, ...]:
        """The branches that go as a whole."""
        whole = [group for group in self.groups if len(removed.get(group.name, ())) == group.units]
        return tuple(dict.fromkeys(branch for group in whole for branch in group.branches))

    def swept(self, removed: Removed) -> frozenset[str]:
        """The groups of which nothing is left because a branch goes as a whole, whatever ``removed`` says of them."""
        branches = self.gone(removed)
        if not branches:
            return frozenset()
        alive = {str(node.target) for node in live_nodes(self.model.graph, branches) if node.op == "get_attr"}
        return frozenset(group.name for group in self.groups if alive.isdisjoint(name for name, _ in group.slices))

    def macs(self, removed: Removed) -> int:
        """Multiply-accumulates per sample without the units of ``removed``."""
        marks, branches = self.marks(removed), self.gone(removed)
        live = {node.name for node in live_nodes(self.model.graph, branches)} if branches else None
        total = 0.0
        for cost in self.tracer.costs:
            share = float(cost.macs) if live is None or cost.node in live else 0.0
            for factor in cost.factors:
                share *= 1.0 - float(marks[factor].mean())
            total += share
        return round(total)


def trace_channels(program: ExportedProgram) -> ChannelMap:
    """Find what can be removed; ``program``, in eval mode, keeps its graph and weights."""
    model = program.module(check_guards=False)
    choices: dict[str, int] = {}
    for _ in range(_ATTEMPTS):
        tracer = Tracer(model=model, rules=_RULES, pointwise=POINTWISE, choices=choices)
        tracer.run()
        stuck = [
            key
            for key, split in tracer.splits.items()
            if split.units is not None and all(tracer.units.reasons(int(unit)) for unit in split.units)
        ]
        if not stuck:
            break
        for key in stuck:  # what was chosen as removable is not: choose the next part of the axis
            choices[key] = choices.get(key, 0) + 1
    return _map(model, tracer)


def _map(model: GraphModule, tracer: Tracer) -> ChannelMap:
    places = _places(tracer)
    free = {unit: found for unit, found in places.items() if not tracer.units.reasons(unit)}
    makers = _makers(tracer)
    by_kind: dict[frozenset[tuple[str, int]], list[int]] = {}
    for unit, found in free.items():
        if unit in makers:
            by_kind.setdefault(frozenset(found), []).append(unit)
    names: set[str] = set()
    groups: list[ChannelGroup] = []
    unit_of: dict[int, tuple[str, int]] = {}
    order = {layer: number for number, layer in enumerate(dict.fromkeys(_layer(name) for name, _ in tracer.made))}
    kinds = sorted(by_kind.values(), key=lambda units: (min(order[layer] for layer in makers[units[0]]), units[0]))
    for units in kinds:
        units.sort()
        layers = tuple(dict.fromkeys(makers[units[0]]))
        name = _free_name(layers[0] + (f" +{len(layers) - 1}" if len(layers) > 1 else ""), names)
        keys = list(places[units[0]])
        slices = {
            key: np.array([places[unit][key] for unit in units], np.int64) for key in keys if _even(places, units, key)
        }
        if len(slices) < len(keys):
            for unit in units:
                tracer.units.pin(np.array([unit]), "its parts are uneven")
            continue
        width = min(part.shape[1] for part in slices.values()) * len(units)
        groups.append(
            ChannelGroup(
                name=name,
                layers=layers,
                units=len(units),
                width=width,
                slices=slices,
                exact=not any(tracer.units.is_inexact(unit) for unit in units),
                branches=find_branch(tracer, slices, [name for name, _ in tracer.made if _layer(name) in layers]),
            )
        )
        unit_of |= {unit: (name, index) for index, unit in enumerate(units)}
    return ChannelMap(model=model, groups=tuple(groups), pinned=_pinned(tracer), tracer=tracer, unit_of=unit_of)


def _places(tracer: Tracer) -> dict[int, dict[tuple[str, int], list[int]]]:
    """By root: the indices that it has in each axis of each tensor."""
    found: dict[int, dict[tuple[str, int], list[int]]] = {}
    for name, value in tracer.tensors.items():
        for axis, atoms in enumerate(value):
            if len(atoms) != 1 or atoms[0].units is None:
                continue
            for index, unit in enumerate(atoms[0].units.tolist()):
                found.setdefault(tracer.units.find(unit), {}).setdefault((name, axis), []).append(index)
    return found


def _makers(tracer: Tracer) -> dict[int, list[str]]:
    """By root: the layers that have it among their outputs."""
    found: dict[int, list[str]] = {}
    for name, units in tracer.made:
        for root in {tracer.units.find(unit) for unit in units.tolist()}:
            layers = found.setdefault(root, [])
            if _layer(name) not in layers:
                layers.append(_layer(name))
    return found


def _layer(parameter: str) -> str:
    owner, _, leaf = parameter.rpartition(".")
    return owner or leaf


def _even(
    places: Mapping[int, Mapping[tuple[str, int], Sequence[int]]], units: Sequence[int], key: tuple[str, int]
) -> bool:
    return len({len(places[unit].get(key, ())) for unit in units}) == 1


def _free_name(name: str, taken: set[str]) -> str:
    free, number = name, 2
    while free in taken:
        free, number = f"{name} #{number}", number + 1
    taken.add(free)
    return free


def _pinned(tracer: Tracer) -> tuple[Pinned, ...]:
    """Layers of which no output can go, with all reasons."""
    found: dict[str, str] = {}
    for name, units in tracer.made:
        reasons = [tracer.units.reasons(unit) for unit in units.tolist()]
        if all(reasons):
            found[_layer(name)] = "; ".join(dict.fromkeys(reason for each in reasons for reason in each))
    return tuple(Pinned(name=name, reason=reason) for name, reason in found.items())
