"""Follows every axis of every tensor through a graph: which indices stand or fall together."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.fx import GraphModule, Node

from edgeopt.compress.attributes import attribute
from edgeopt.compress.pruning.axes import Atom, Units, Value, fixed

__all__ = ["Cost", "Rule", "Split", "Tracer", "bound", "op_name", "parameter_of"]

Rule = Callable[["Tracer", Node, Mapping[str, Any]], Any]
"""Gives a node's ``Value``, or a tuple of them; joins and pins units on the way. The mapping: its arguments by name."""

_FIRST_PRIME = 1_000_003  # symbolic sizes are stood for by primes that no fixed size has as a factor


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Multiply-accumulates that shrink with their axes.

    Attributes:
        node: Which node's.
        macs: Per sample, of the whole.
        factors: Axes (units by index, int64) that it is proportional to.
    """

    node: str
    macs: int
    factors: tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Where an axis of channels is seen as several: one of them is chosen as what can be removed.

    Attributes:
        options: How many there are to choose from.
        units: Of the chosen one; None: none is left.
    """

    options: int
    units: Any


@dataclass(kw_only=True)
class Tracer:
    """One walk through a graph.

    Attributes:
        model: Parameters and buffers are get_attr nodes.
        rules: By operator name, without overload and in-place underscore.
        pointwise: For what has no rule and is tagged as working element by element.
        choices: By split: which option to take.
        values: By node: what ``Rule`` gives.
        tensors: By dotted name of a parameter or buffer: its axes.
        made: By unit vector of a layer's output channels: ``(layer's name, vector)``, in the graph's order.
        norms: Names of the scales of BatchNorms.
        reads: Axes, as (tensor, axis), along which a layer's weight reads channels.
        unknown: Operators without a rule that channels run into, and how often.
    """

    model: GraphModule
    rules: Mapping[str, Rule]
    pointwise: Rule
    choices: Mapping[str, int]
    units: Units = field(default_factory=Units)
    values: dict[Node, Any] = field(default_factory=dict)
    tensors: dict[str, Value] = field(default_factory=dict)
    splits: dict[str, Split] = field(default_factory=dict)
    made: list[tuple[str, Any]] = field(default_factory=list)
    costs: list[Cost] = field(default_factory=list)
    norms: set[str] = field(default_factory=set)
    reads: set[tuple[str, int]] = field(default_factory=set)
    unknown: dict[str, int] = field(default_factory=dict)
    _by_identity: dict[int, str] = field(default_factory=dict)
    _primes: dict[Any, int] = field(default_factory=dict)

    def run(self) -> None:
        """Walk through the whole graph."""
        for node in self.model.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = self._input(node)
            elif node.op == "get_attr":
                self.values[node] = self._tensor(node)
            elif node.op == "output":
                for source in node.all_input_nodes:
                    self.pin_node(source, "it is an output of the model")
            elif node.op == "call_function":
                self.values[node] = self._call(node)

    def value(self, node: Any) -> Value | None:
        """A node's axes; None for what is no tensor."""
        found = self.values.get(node) if isinstance(node, Node) else None
        return found if found is None or not found or isinstance(found[0][0], Atom) else None

    def axes(self, node: Any) -> Value:
        """As ``value``, of a node that must be a tensor."""
        found = self.value(node)
        if found is None:
            raise TypeError(f"{node} is no tensor")
        return found

    def shape(self, node: Node) -> tuple[int, ...]:
        """Its sizes, symbolic ones as primes; raises TypeError where it is no tensor."""
        example = node.meta.get("val")
        if not isinstance(example, torch.Tensor):
            raise TypeError(f"{node} is no tensor")
        return tuple(self.size(size) for size in example.shape)

    def size(self, size: Any) -> int:
        """An int for a size."""
        if isinstance(size, int):
            return size
        expression = size.node.expr
        for symbol in sorted(expression.free_symbols, key=str):
            if symbol not in self._primes:
                self._primes[symbol] = _next_prime(max(self._primes.values(), default=_FIRST_PRIME))
        return int(expression.subs(self._primes))

    def per_sample(self, count: int) -> int:
        """A product of sizes with its symbolic ones, and the batch where that is fixed, divided out."""
        for prime in self._primes.values():
            while count % prime == 0:
                count //= prime
        return max(count // self.batch, 1)

    @property
    def batch(self) -> int:
        """The fixed first size of the first input; 1 where it is symbolic."""
        first = next((node for node in self.model.graph.nodes if node.op == "placeholder"), None)
        example = None if first is None else first.meta.get("val")
        size = example.shape[0] if isinstance(example, torch.Tensor) and example.ndim else 1
        return size if isinstance(size, int) else 1

    def plain(self, node: Node) -> Value:
        """Axes that stay, of a node's own sizes."""
        return tuple(fixed(size) for size in self.shape(node))

    def pin_node(self, node: Any, reason: str) -> None:
        """Pin all that a node gives."""
        found = self.values.get(node)
        for value in found if found and not isinstance(found[0][0], Atom) else (found,):
            if value is not None:
                self.units.pin_all(value, reason)

    def give_up(self, node: Node, reason: str) -> Any:
        """Pin every input; what comes out stays."""
        for source in node.all_input_nodes:
            self.pin_node(source, reason)
        example = node.meta.get("val")
        if isinstance(example, torch.Tensor):
            return self.plain(node)
        if isinstance(example, (tuple, list)):
            return tuple(
                tuple(fixed(self.size(size)) for size in one.shape) if isinstance(one, torch.Tensor) else ()
                for one in example
            )
        return None

    def _input(self, node: Node) -> Value | None:
        return self.plain(node) if isinstance(node.meta.get("val"), torch.Tensor) else None

    def _tensor(self, node: Node) -> Value | None:
        name = str(node.target)
        found: Any = attribute(self.model, name)
        if not isinstance(found, torch.Tensor):
            return None
        name = self._by_identity.setdefault(id(found), name)
        if name not in self.tensors:
            self.tensors[name] = tuple(
                (Atom(size, self.units.fresh(size)),) if size > 1 else fixed(size) for size in found.shape
            )
        return self.tensors[name]

    def _call(self, node: Node) -> Any:
        if node.target is operator.getitem:
            source, index = node.args
            found = self.values.get(source) if isinstance(source, Node) else None
            return found[index] if found is not None else None
        example = node.meta.get("val")
        if not isinstance(example, (torch.Tensor, tuple, list)):
            return None  # a size
        name = op_name(node)
        rule = self.rules.get(name)
        if rule is None and torch.Tag.pointwise in getattr(node.target, "tags", ()):
            rule = self.pointwise
        if rule is None:
            if any(self._has_units(source) for source in node.all_input_nodes):
                self.unknown[name] = self.unknown.get(name, 0) + 1
            return self.give_up(node, f"it runs into {name}, for which there is no rule")
        return rule(self, node, bound(node))

    def _has_units(self, node: Node) -> bool:
        value = self.value(node)
        return value is not None and any(atom.units is not None for axis in value for atom in axis)


def op_name(node: Node) -> str:
    """``conv2d`` of ``aten.conv2d.default``; ``add`` of ``aten.add_.Tensor``."""
    parts = str(node.target).split(".")
    name = parts[1] if len(parts) > 1 else parts[0]
    return name.removesuffix("_")


def bound(node: Node) -> dict[str, Any]:
    """A call's arguments by their names in the operator's schema, defaults filled in."""
    schema = node.target._schema  # type: ignore[union-attr]  # noqa: SLF001  an OpOverload
    found: dict[str, Any] = {}
    for place, argument in enumerate(schema.arguments):
        if place < len(node.args):
            found[argument.name] = node.args[place]
        elif argument.name in node.kwargs:
            found[argument.name] = node.kwargs[argument.name]
        else:
            found[argument.name] = argument.default_value if argument.has_default_value() else None
    return found


def parameter_of(node: Any) -> str | None:
    """The dotted name of the tensor that a node reads, through what only changes its layout; None: it is computed."""
    through = (
        "transpose",
        "t",
        "permute",
        "view",
        "reshape",
        "clone",
        "contiguous",
        "detach",
        "alias",
        "to",
        "_to_copy",
    )
    while isinstance(node, Node) and node.op == "call_function" and op_name(node) in through:
        node = node.args[0]
    return str(node.target) if isinstance(node, Node) and node.op == "get_attr" else None


def _next_prime(after: int) -> int:
    candidate = after + 2
    while any(candidate % factor == 0 for factor in range(3, int(candidate**0.5) + 1, 2)):
        candidate += 2
    return candidate
