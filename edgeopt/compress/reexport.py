"""From the converted graph module back to an ExportedProgram with the inputs of the one it came from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from edgeopt.core.errors import GraphError
from edgeopt.core.spec import TensorSpec

__all__ = ["export_again", "match_nodes"]


def export_again(model: GraphModule, original: ExportedProgram, inputs: Sequence[TensorSpec]) -> ExportedProgram:
    """Export ``model`` with the inputs of ``original``: names, dtypes, fixed and dynamic dimensions.

    Args:
        model: Takes what the original program takes.
        original: Read only.
        inputs: Of the model, in order; a dimension that is fixed there is fixed in the result.

    Raises:
        GraphError: ``torch.export`` refuses the graph.
    """
    # A fresh module holds the constants that the graph reads, and not the float weights it no longer does.
    model.graph.eliminate_dead_code()
    model = GraphModule(model, model.graph)
    flat, dims = _example_inputs(original, inputs)
    spec = original.call_spec.in_spec
    args, kwargs = pytree.tree_unflatten(flat, spec)
    shapes, named_shapes = pytree.tree_unflatten(dims, spec)
    try:
        return torch.export.export(
            model, args, kwargs or None, dynamic_shapes=(*shapes, *named_shapes.values()), strict=False
        )
    except Exception as error:  # torch.export raises many kinds
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise GraphError("torch.export refused the quantized graph.", got=reason, fix="Please report this.") from error


def match_nodes(before: GraphModule, after: ExportedProgram) -> dict[str, str]:
    """Names of the calls in ``before`` → their names in ``after``; metadata of where they come from goes along.

    Raises:
        GraphError: The calls are not the same ones in the same order.
    """
    old, new = _calls(before.graph), _calls(after.graph)
    if [n.target for n in old] != [n.target for n in new]:
        raise GraphError(
            "The quantized graph changed while it was exported again.",
            got=f"{len(old)} calls before, {len(new)} after",
            fix="Please report this, with the model.",
        )
    for source, made in zip(old, new, strict=True):
        for key in ("nn_module_stack", "stack_trace"):
            if key in source.meta:
                made.meta[key] = source.meta[key]
    return {source.name: made.name for source, made in zip(old, new, strict=True)}


def _calls(graph: torch.fx.Graph) -> list[Node]:
    """The calls that compute tensors: arithmetic on sizes may be written in another way."""
    return [
        n
        for n in graph.nodes
        if n.op == "call_function" and isinstance(n.target, torch._ops.OpOverload) and not _is_size(n)  # noqa: SLF001
    ]


def _is_size(node: Node) -> bool:
    _, _, name = str(node.target).partition(".")
    return name.startswith("sym_") or "_assert" in name


def _example_inputs(program: ExportedProgram, inputs: Sequence[TensorSpec]) -> tuple[list[Any], list[Any]]:
    """A value for every flat input, and for every tensor its dynamic dimensions."""
    placeholders = {n.name: n for n in program.graph.nodes if n.op == "placeholder"}
    dims: dict[Any, Any] = {}
    specs = iter(inputs)
    flat: list[Any] = []
    shapes: list[Any] = []
    for name in program.graph_signature.user_inputs:
        value = placeholders[name].meta["val"] if isinstance(name, str) and name in placeholders else name
        if not isinstance(value, torch.Tensor):
            flat.append(value)
            shapes.append(None)
            continue
        spec = next(specs)
        sizes: list[int] = []
        dynamic: dict[int, Any] = {}
        size: Any  # an int, or a SymInt that torch's types do not tell from one
        for axis, (size, declared) in enumerate(zip(value.shape, spec.shape, strict=True)):
            if isinstance(declared, int) or isinstance(size, int):
                sizes.append(declared if isinstance(declared, int) else int(size))
                continue
            low, high = _bounds(program, size)
            sizes.append(max(2, low) if high is None or high >= 2 else high)
            dynamic[axis] = _dimension(dims, size, declared, low, high)
        flat.append(torch.zeros(sizes, dtype=value.dtype))
        shapes.append(dynamic)
    return flat, shapes


def _dimension(dims: dict[Any, Any], size: torch.SymInt, name: str, low: int, high: int | None) -> Any:
    """One Dim per symbol; a size that is an expression of others is left to torch to derive."""
    expression = size.node.expr
    if not expression.is_symbol:
        return Dim.AUTO
    if expression not in dims:
        taken = {dim.__name__ for dim in dims.values()}
        dims[expression] = Dim(f"{name}_{len(dims)}" if name in taken else name, min=low or None, max=high)
    return dims[expression]


def _bounds(program: ExportedProgram, size: torch.SymInt) -> tuple[int, int | None]:
    bounds = program.range_constraints.get(size.node.expr)
    if bounds is None:
        return 0, None
    high = int(bounds.upper) if bounds.upper.is_finite and bounds.upper < (1 << 62) else None
    return int(bounds.lower), high
