"""Runs a graph on tensors without data, at one set of sizes: every value's shape, type and storage, in no time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import ExportedProgram
from torch.fx import GraphModule, Interpreter, Node

from edgeopt.core.errors import ModelError, nearest_first
from edgeopt.core.spec import TensorSpec
from edgeopt.model.quiet import quiet

__all__ = ["choose_sizes", "walk"]


def choose_sizes(
    program: ExportedProgram, specs: Sequence[TensorSpec], given: Mapping[str, int]
) -> tuple[list[tuple[int, ...]], dict[str, int]]:
    """A size for each open dimension of the inputs: 1 for the batch, what is given, or what it was exported with.

    Args:
        program: Its user inputs are those of ``specs``, in order.
        specs: They name the open dimensions.
        given: Size by name.

    Returns:
        Shape by input, and the sizes that were chosen by name; the batch is among them.

    Raises:
        ModelError: No open dimension has such a name, or it does not take such a size.
    """
    examples = [node.meta["val"] for node in _inputs(program)]
    symbols: dict[Any, tuple[str, int | None]] = {}  # name, hint
    for spec, example in zip(specs, examples, strict=True):
        for name, size in zip(spec.shape, getattr(example, "shape", ()), strict=True):
            if isinstance(size, torch.SymInt) and size.node.expr.is_Symbol:
                symbols.setdefault(size.node.expr, (str(name), size.node.hint))
    names = {name for name, _ in symbols.values()}
    for name in given:
        if name not in names:
            known = ", ".join(nearest_first(name, sorted(names)))
            raise ModelError(
                "The model has no open dimension of that name.",
                got=repr(name),
                fix=f"Its open dimensions: {known}." if names else "All its sizes are fixed.",
            )
    batch = next((spec.batch for spec in specs if spec.batch is not None), None)
    sizes: dict[Any, int] = {}
    for symbol, (name, hint) in symbols.items():
        bounds = program.range_constraints.get(symbol)
        low, high = (bounds.lower, bounds.upper) if bounds is not None else (1, None)
        wanted = given.get(name, max(1, int(low)) if name == batch or hint is None else int(hint))
        if wanted < max(1, low) or (high is not None and wanted > high):
            raise ModelError(
                f"The dimension {name} does not take this size.", got=wanted, fix=f"It is from {low} to {high}."
            )
        sizes[symbol] = wanted
    shapes = [tuple(_size(size, sizes) for size in getattr(example, "shape", ())) for example in examples]
    return shapes, {symbols[symbol][0]: size for symbol, size in sizes.items()}


def walk(graph: GraphModule, shapes: Sequence[tuple[int, ...]]) -> dict[str, Any]:
    """What each node gives, by name, for inputs of these shapes: fake tensors, which have everything but values.

    Raises:
        ModelError: A shape depends on values, or an op does not take these sizes.
    """
    mode = FakeTensorMode()
    walker = _Walker(graph, mode)
    examples = [node.meta["val"] for node in graph.graph.find_nodes(op="placeholder")]
    with mode, torch.no_grad(), quiet():
        inputs = [
            torch.empty(shape, dtype=example.dtype) if isinstance(example, torch.Tensor) else example
            for example, shape in zip(examples, shapes, strict=True)
        ]
        try:
            walker.run(*inputs, enable_io_processing=False)
        except Exception as error:
            text = str(error).strip().splitlines()
            raise ModelError(
                "The graph cannot be followed without data.",
                got=f"{type(error).__name__} in {walker.at!r}: {text[0] if text else ''}",
                fix="Its shapes depend on values, or an op refuses these sizes: other ones can be given by name.",
            ) from error
    return walker.values


class _Walker(Interpreter):
    """Keeps every value, so that no storage's identity is used twice."""

    def __init__(self, graph: GraphModule, mode: FakeTensorMode) -> None:
        super().__init__(graph)
        self.values: dict[str, Any] = {}
        self.at = ""
        self._mode = mode

    def run_node(self, n: Node) -> Any:
        """One node."""
        self.at = n.name
        value = super().run_node(n)
        self.values[n.name] = value
        return value

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        """A constant without its data."""
        value = super().get_attr(target, args, kwargs)
        return self._mode.from_tensor(value, static_shapes=True) if isinstance(value, torch.Tensor) else value


def _inputs(program: ExportedProgram) -> list[Node]:
    names = set(program.graph_signature.user_inputs)
    return [node for node in program.graph.find_nodes(op="placeholder") if node.name in names]


def _size(size: Any, sizes: Mapping[Any, int]) -> int:
    return size if isinstance(size, int) else int(size.node.expr.subs(sizes))
