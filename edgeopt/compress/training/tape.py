"""A graph as a plain module that trains: it can be pickled for other processes, and its mode switched.

An ``fx.GraphModule`` of an exported program can do neither: pickling recurses too deeply, and ``train()`` is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from edgeopt.compress.attributes import attribute
from edgeopt.core.errors import RecipeError

__all__ = ["Tape", "operator_of", "own_tensors", "trained_parameters"]


@dataclass(frozen=True, slots=True)
class _Value:
    """Stands for the result of an earlier row."""

    name: str


@dataclass(frozen=True, slots=True)
class _Op:
    """An ATen operator by its qualified name, ``aten.conv2d.default``."""

    name: str


_BATCH_NORM = _Op("aten.batch_norm.default")


@dataclass(frozen=True, slots=True)
class _Row:
    """One node. ``target``: of a call, what ``_resolved`` finds; else the attribute's name in the tape."""

    name: str
    kind: str
    target: Any
    args: Any
    kwargs: Any
    spent: tuple[str, ...]


class Tape(torch.nn.Module):
    """Runs the nodes of a graph in order, on the graph's own parameters and modules: training them trains the graph.

    Args:
        model: Its graph is copied; nodes added to it later are not in the tape.
        points: Names of nodes whose values follow the outputs, as they are before another node changes them in place.

    Attributes:
        live_norms: Whether BatchNorms use, and move, batch statistics while training.
        state_names: Dotted name in the graph → name of the same tensor or module in the tape.
    """

    def __init__(self, model: GraphModule, points: Sequence[str] = ()) -> None:
        super().__init__()
        self._rows: list[_Row] = []
        nodes = {node.name: node for node in model.graph.nodes}
        self._points = {name: any(_writes(user) for user in nodes[name].users) for name in points}
        self._inputs: list[str] = []
        self._output: Any = None
        self.state_names: dict[str, str] = {}
        self.live_norms = False
        last = _last_uses(model, [nodes[name] for name in points])
        for node in model.graph.nodes:
            if node not in last and node.op not in ("placeholder", "output"):
                continue  # nothing that is returned needs it
            if node.op == "placeholder":
                self._inputs.append(node.name)
            elif node.op == "output":
                self._output = _referring(node.args[0])
            else:
                self._rows.append(self._row(model, node, last[node]))
        self._calls: list[Any] | None = None

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Flat inputs to the flat tensors among the outputs, the points' values behind them."""
        if self._calls is None:
            self._calls = [_resolved(row.target) if row.kind == "call_function" else None for row in self._rows]
        known: dict[str, Any] = dict(zip(self._inputs, inputs, strict=True))
        seen: dict[str, torch.Tensor] = {}
        for row, call in zip(self._rows, self._calls, strict=True):
            if row.kind == "get_attr":
                known[row.name] = getattr(self, row.target)
            else:
                args, kwargs = _filled(row.args, known), _filled(row.kwargs, known)
                if self.live_norms and self.training and row.target == _BATCH_NORM:
                    args = (*args[:5], True, *args[6:])
                called = call if call is not None else getattr(self, row.target)
                known[row.name] = called(*args, **kwargs)
            if row.name in self._points:
                seen[row.name] = known[row.name].clone() if self._points[row.name] else known[row.name]
            for name in row.spent:
                del known[name]
        leaves = pytree.tree_leaves(_filled(self._output, known))
        outputs = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]
        return (*outputs, *(seen[name] for name in self._points))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_calls": None}

    def _row(self, model: GraphModule, node: Node, spent: tuple[str, ...]) -> _Row:
        target: Any = node.target
        if node.op == "get_attr":
            target = self._adopt(str(node.target), attribute(model, str(node.target)))
        elif node.op == "call_module":
            target = self._adopt(str(node.target), model.get_submodule(str(node.target)))
        elif isinstance(target, torch._ops.OpOverload):  # noqa: SLF001  it cannot be pickled, its name can
            target = _Op(str(target))
        return _Row(node.name, node.op, target, _referring(node.args), _referring(node.kwargs), spent)

    def _adopt(self, dotted: str, value: Any) -> str:
        name = f"own_{dotted.replace('.', '__')}"
        self.state_names[dotted] = name
        if not hasattr(self, name):
            if isinstance(value, torch.nn.Parameter):
                self.register_parameter(name, value)
            elif isinstance(value, torch.Tensor):
                self.register_buffer(name, value)
            else:
                self.add_module(name, value)
        return name


def operator_of(name: str) -> Any:
    """The operator that ``str`` calls ``name``: ``aten.conv2d.default``. By name it can be pickled."""
    found: Any = torch.ops
    for part in name.split("."):
        found = getattr(found, part)
    return found


def own_tensors(model: GraphModule, trained: set[str]) -> int:
    """Give a graph parameters of its own, in place: what is trained must not be what the user's model holds.

    Args:
        model: Its get_attr nodes' tensors are copied.
        trained: Names of the nodes whose parameters take gradients.

    Returns:
        How many elements take gradients.
    """
    made: dict[str, torch.Tensor] = {}
    for node in model.graph.nodes:
        name = str(node.target)
        if node.op != "get_attr" or name in made or not isinstance(attribute(model, name), torch.Tensor):
            continue
        old = attribute(model, name)
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        made[name] = old.detach().clone()
        if isinstance(old, torch.nn.Parameter):
            made[name] = torch.nn.Parameter(made[name], requires_grad=node.name in trained)
            setattr(module, leaf, made[name])
        else:
            module.register_buffer(leaf, made[name])
    return sum(value.numel() for value in made.values() if value.requires_grad)


def trained_parameters(program: ExportedProgram) -> set[str]:
    """Names of the program's parameters that take gradients.

    Raises:
        RecipeError: There is none.
    """
    parameters = dict(program.named_parameters())
    found = {name for name, parameter in parameters.items() if parameter.requires_grad}
    if not found:
        raise RecipeError(
            "The model is frozen: none of its parameters takes gradients.",
            got=f"{len(parameters)} parameters, all with requires_grad=False" if parameters else "no parameters at all",
            fix="Export the model with its parameters (no torch.jit.freeze, no requires_grad_(False)), "
            "or use a recipe without training, such as 'int8-ptq'.",
        )
    return found


def _last_uses(model: GraphModule, points: Sequence[Node]) -> dict[Node, tuple[str, ...]]:
    """Every node that the outputs and the points depend on → the names of the values that no later one reads."""
    needed: set[Node] = set()
    found: dict[Node, tuple[str, ...]] = {}
    for node in reversed(model.graph.nodes):
        if node.op == "output":
            needed.update(node.all_input_nodes)
        elif node in needed or _writes(node):
            fresh = [source for source in node.all_input_nodes if source not in needed]
            needed.update(fresh)
            found[node] = tuple(source.name for source in fresh)
        elif node in points:
            fresh = [source for source in node.all_input_nodes if source not in needed]
            needed.update((node, *fresh))
            found[node] = (node.name, *(source.name for source in fresh))
    return found


def _writes(node: Node) -> bool:
    """Whether a node is needed for what it does, not for what it gives: an in-place op."""
    schema = getattr(node.target, "_schema", None)
    return node.op == "call_function" and schema is not None and bool(schema.is_mutable)


def _referring(value: Any) -> Any:
    """A node's arguments as plain containers, each node in them replaced by a reference."""
    if isinstance(value, Node):
        return _Value(value.name)
    if isinstance(value, (tuple, list)):
        made = [_referring(item) for item in value]
        return tuple(made) if isinstance(value, tuple) else made
    if isinstance(value, dict):
        return {key: _referring(item) for key, item in value.items()}
    return value


def _filled(value: Any, known: dict[str, Any]) -> Any:
    """``value`` with every reference replaced by what it stands for."""
    if isinstance(value, _Value):
        return known[value.name]
    if isinstance(value, (tuple, list)):
        return type(value)(_filled(item, known) for item in value)
    if isinstance(value, dict):
        return {key: _filled(item, known) for key, item in value.items()}
    return value


def _resolved(target: Any) -> Any:
    return operator_of(target.name) if isinstance(target, _Op) else target
