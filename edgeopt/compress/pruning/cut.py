"""The program without some of its units: smaller tensors, and every size in the graph that followed from them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from edgeopt.compress.attributes import attribute
from edgeopt.compress.pruning.axes import Axis, kept_size, size_of
from edgeopt.compress.pruning.branches import drop_branches
from edgeopt.compress.pruning.channels import ChannelMap, Removed
from edgeopt.compress.pruning.copies import copied
from edgeopt.compress.pruning.tracer import Tracer, bound, op_name
from edgeopt.compress.reexport import export_again, match_nodes
from edgeopt.core.spec import TensorSpec

__all__ = ["cut", "cut_graph"]

A = torch.ops.aten


def cut(
    program: ExportedProgram, channels: ChannelMap, removed: Removed, inputs: Sequence[TensorSpec]
) -> ExportedProgram:
    """A program without the units of ``removed``; ``program`` is not changed.

    Args:
        program: What ``channels`` was traced from.
        inputs: Of the model, in order.

    Raises:
        GraphError: ``torch.export`` refuses the smaller graph.
    """
    model = cut_graph(channels, removed)
    made = export_again(model, program, inputs)
    match_nodes(model, made)
    return made


def cut_graph(channels: ChannelMap, removed: Removed) -> GraphModule:
    """As ``cut``, as a graph module whose nodes' metadata is still the original's."""
    marks = channels.marks(removed)
    model = copied(channels.model)
    drop_branches(model.graph, channels.gone(removed))
    _cut_tensors(model, channels.tracer, marks)
    values = {node.name: value for node, value in channels.tracer.values.items()}
    for node in list(model.graph.nodes):
        if node.op == "call_function" and (rewrite := _REWRITES.get(op_name(node))) is not None:
            rewrite(model, node, _Sizes(values, marks))
    model.graph.lint()
    model.recompile()
    return model


def _cut_tensors(model: GraphModule, tracer: Tracer, marks: Any) -> None:
    """In place: every name of a tensor that several share gets the same smaller one."""
    made: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # by identity; both, so that none is given twice
    done: set[str] = set()
    values = {str(node.target): node for node in tracer.model.graph.nodes if node.op == "get_attr"}
    for node in model.graph.nodes:
        name = str(node.target)
        if node.op != "get_attr" or name in done or not tracer.value(values[name]):
            continue
        done.add(name)
        old = attribute(model, name)
        if id(old) not in made:
            made[id(old)] = (old, _smaller(old, tracer.axes(values[name]), marks))
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, made[id(old)][1])


def _smaller(old: torch.Tensor, axes: Sequence[Axis], marks: Any) -> torch.Tensor:
    new = old.detach()
    for axis, atoms in enumerate(axes):
        units = atoms[0].units
        if units is not None and marks[units].any():
            new = new.index_select(axis, torch.from_numpy(np.flatnonzero(~marks[units])))
    if new.shape == old.shape:
        return old
    return torch.nn.Parameter(new, requires_grad=old.requires_grad) if isinstance(old, torch.nn.Parameter) else new


class _Sizes:
    """What became of each axis."""

    def __init__(self, values: Mapping[str, Any], marks: Any) -> None:
        self.values, self.marks = values, marks

    def changed(self, axis: Axis) -> bool:
        return any(atom.units is not None and bool(self.marks[atom.units].any()) for atom in axis)

    def kept(self, axis: Axis) -> int:
        return kept_size(axis, self.marks)

    def of(self, node: Any) -> Any:
        return self.values[node.name]

    def resized(self, model: GraphModule, node: Node, size: Any, axis: Axis) -> Any:
        """A size argument, as it is now: an int, -1, or a node where it depends on the batch."""
        if not self.changed(axis) or (isinstance(size, int) and size == -1):
            return size
        if isinstance(size, int):
            return self.kept(axis)
        old, new = 1, 1
        for atom in axis:
            if atom.units is not None:
                old, new = old * atom.size, new * int((~self.marks[atom.units]).sum())
        with model.graph.inserting_before(node):
            whole = model.graph.call_function(operator.floordiv, (size, old))
            return model.graph.call_function(operator.mul, (whole, new))


def _set(node: Node, name: str, value: Any) -> None:
    """Change one argument, wherever it stands."""
    schema = node.target._schema  # type: ignore[union-attr]  # noqa: SLF001  an OpOverload
    place = next(number for number, argument in enumerate(schema.arguments) if argument.name == name)
    if place < len(node.args):
        node.args = (*node.args[:place], value, *node.args[place + 1 :])
    else:
        node.kwargs = {**node.kwargs, name: value}


def _all_sizes(name: str) -> Callable[[GraphModule, Node, _Sizes], None]:
    def rewrite(model: GraphModule, node: Node, sizes: _Sizes) -> None:
        wanted = bound(node)[name]
        made = [sizes.resized(model, node, size, axis) for size, axis in zip(wanted, sizes.of(node), strict=True)]
        _set(node, name, made)

    return rewrite


def _unflatten(model: GraphModule, node: Node, sizes: _Sizes) -> None:
    args = bound(node)
    place = int(args["dim"]) % len(sizes.of(node.args[0]))
    axes = sizes.of(node)[place : place + len(args["sizes"])]
    made = [sizes.resized(model, node, size, axis) for size, axis in zip(args["sizes"], axes, strict=True)]
    _set(node, "sizes", made)


def _pieces(model: GraphModule, node: Node, sizes: _Sizes) -> None:  # noqa: ARG001
    args, source = bound(node), sizes.of(node.args[0])
    place = int(args["dim"] or 0) % len(source)
    if sizes.changed(source[place]):
        kept = [sizes.kept(part[place]) for part in sizes.of(node)]
        node.target, node.args, node.kwargs = A.split_with_sizes.default, (node.args[0], kept, place), {}


def _slice(model: GraphModule, node: Node, sizes: _Sizes) -> None:  # noqa: ARG001
    args, source = bound(node), sizes.of(node.args[0])
    place = int(args["dim"] or 0) % len(source)
    if not sizes.changed(source[place]):
        return
    size = size_of(source[place])
    first, last, _ = slice(args["start"], args["end"], None).indices(size)
    units = source[place][0].units
    if len(source[place]) > 1 or units is None:  # all of it
        return
    kept = ~sizes.marks[units]
    node.target, node.kwargs = A.slice.Tensor, {}
    node.args = (node.args[0], place, int(kept[:first].sum()), int(kept[:last].sum()))


def _normalized(model: GraphModule, node: Node, sizes: _Sizes) -> None:  # noqa: ARG001
    shape = bound(node)["normalized_shape"]
    if len(shape) == 1:
        _set(node, "normalized_shape", [sizes.kept(sizes.of(node.args[0])[-1])])


def _groups(model: GraphModule, node: Node, sizes: _Sizes) -> None:  # noqa: ARG001
    args = bound(node)
    source, rank = sizes.of(args["input"]), len(sizes.of(args["weight"]))
    channels = source[len(source) - rank + 1]
    if int(args["groups"] or 1) == size_of(channels) > 1 and sizes.changed(channels):
        _set(node, "groups", sizes.kept(channels))


def _scale(model: GraphModule, node: Node, sizes: _Sizes) -> None:  # noqa: ARG001
    """The default follows from the width of a head, which may have changed; the original's stays."""
    inner = sizes.of(node.args[0])[-1]
    if bound(node)["scale"] is None and sizes.changed(inner):
        node.kwargs = {**node.kwargs, "scale": size_of(inner) ** -0.5}


def _native_group_norm(model: GraphModule, node: Node, sizes: _Sizes) -> None:  # noqa: ARG001
    _set(node, "C", sizes.kept(sizes.of(node.args[0])[1]))


_REWRITES: dict[str, Callable[[GraphModule, Node, _Sizes], None]] = {
    "view": _all_sizes("size"),
    "_unsafe_view": _all_sizes("size"),
    "view_copy": _all_sizes("size"),
    "reshape": _all_sizes("shape"),
    "unflatten": _unflatten,
    **dict.fromkeys(("zeros", "ones", "full", "empty", "new_zeros", "new_ones"), _all_sizes("size")),
    **dict.fromkeys(("split", "split_with_sizes", "chunk", "tensor_split"), _pieces),
    "slice": _slice,
    **dict.fromkeys(("layer_norm", "native_layer_norm", "rms_norm"), _normalized),
    **dict.fromkeys(
        ("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
        _groups,
    ),
    "scaled_dot_product_attention": _scale,
    "native_group_norm": _native_group_norm,
}


def _expand(model: GraphModule, node: Node, sizes: _Sizes) -> None:
    """-1 and 1 stand for what is there; a size that is written out follows it."""
    wanted, source = bound(node)["size"], sizes.of(node.args[0])
    new = len(wanted) - len(source)
    made = [
        size
        if place < new or size_of(source[place - new]) == 1
        else sizes.resized(model, node, size, source[place - new])
        for place, size in enumerate(wanted)
    ]
    _set(node, "size", made)


_REWRITES["expand"] = _expand
