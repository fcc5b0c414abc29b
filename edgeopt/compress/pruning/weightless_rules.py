"""Operators without weights: element by element, along an axis, over space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.fx import Node

from edgeopt.compress.pruning.axes import Atom, Axis, Value, fixed
from edgeopt.compress.pruning.tracer import Rule, Tracer, op_name

__all__ = ["POINTWISE", "WEIGHTLESS_RULES"]

Args = Mapping[str, Any]


def _pointwise(tracer: Tracer, node: Node, args: Args) -> Value:  # noqa: ARG001
    """Axes broadcast from the right and are tied where both are there."""
    parts = [value for source in node.all_input_nodes if (value := tracer.value(source)) is not None]
    shape = tracer.shape(node)
    made: list[Axis] = [fixed(1)] * len(shape)
    for part in parts:
        first = len(shape) - len(part)
        for place, axis in enumerate(part):
            made[first + place] = tracer.units.tie(made[first + place], axis, op_name(node))
    return tuple(made)


def _spatial(axes: int) -> Rule:
    """A pool, a resize, a padding: the last axes change, channels pass."""

    def rule(tracer: Tracer, node: Node, args: Args) -> Any:  # noqa: ARG001
        source = tracer.axes(node.args[0])
        first = len(source) - axes
        tracer.units.pin_all(source[first:], f"{op_name(node)} works along it")
        example = node.meta["val"]
        if isinstance(example, (tuple, list)):
            shapes = [tuple(tracer.size(size) for size in one.shape) for one in example]
            return tuple((*source[:first], *(fixed(size) for size in shape[first:])) for shape in shapes)
        return (*source[:first], *(fixed(size) for size in tracer.shape(node)[first:]))

    return rule


def _pad(tracer: Tracer, node: Node, args: Args) -> Value:
    source, shape = tracer.axes(node.args[0]), tracer.shape(node)
    changed = len(args["pad" if "pad" in args else "padding"]) // 2
    tracer.units.pin_all(source[len(source) - changed :], "it is padded")
    return (*source[: len(source) - changed], *(fixed(size) for size in shape[len(source) - changed :]))


def _along(tracer: Tracer, node: Node, args: Args) -> Value:
    """Softmax and its kin: an axis that is normalized as a whole stays; the others pass."""
    source = tracer.axes(node.args[0])
    dims = args.get("dim", args.get("dims"))
    for dim in dims if isinstance(dims, (list, tuple)) else [dims]:
        tracer.units.pin_all([source[int(dim)]], f"{op_name(node)} goes along it")
    return source


def _reduce(tracer: Tracer, node: Node, args: Args) -> Any:
    """mean, sum, max: a reduced axis stays; the others pass."""
    source = tracer.axes(node.args[0])
    dims = args.get("dim")
    places = (
        range(len(source))
        if dims is None or dims == []
        else [int(d) % len(source) for d in (dims if isinstance(dims, (list, tuple)) else [dims])]
    )
    tracer.units.pin_all([source[place] for place in places], f"{op_name(node)} goes along it")
    kept = bool(args.get("keepdim"))
    made = [fixed(1) if place in places else axis for place, axis in enumerate(source) if kept or place not in places]
    example = node.meta["val"]
    result = tuple(made)
    return tuple(result for _ in example) if isinstance(example, (tuple, list)) else result


def _create(tracer: Tracer, node: Node, args: Args) -> Value:  # noqa: ARG001
    """zeros, ones, full: an axis can have any size, so each index gets a unit; the cut writes the size down."""
    return tuple(
        (Atom(size, tracer.units.fresh(size)),) if 1 < size < 1 << 16 else fixed(size) for size in tracer.shape(node)
    )


POINTWISE: Rule = _pointwise
"""Also of every operator that torch tags as pointwise."""

WEIGHTLESS_RULES: dict[str, Rule] = {
    **dict.fromkeys(("hardswish", "where", "masked_fill"), _pointwise),  # not tagged, or not every overload
    **{
        f"{kind}_pool{axes}d": _spatial(axes)
        for axes in (1, 2, 3)
        for kind in ("avg", "max", "adaptive_avg", "adaptive_max", "_adaptive_avg")
    },
    **{f"max_pool{axes}d_with_indices": _spatial(axes) for axes in (2, 3)},
    **{
        f"upsample_{kind}": _spatial(axes)
        for kind, axes in (("nearest1d", 1), ("linear1d", 1), ("nearest2d", 2), ("bilinear2d", 2), ("bicubic2d", 2))
    },
    **dict.fromkeys(("pad", "constant_pad_nd", "reflection_pad1d", "reflection_pad2d", "replication_pad2d"), _pad),
    **dict.fromkeys(("softmax", "_softmax", "log_softmax", "_log_softmax", "cumsum", "sort"), _along),
    **dict.fromkeys(("mean", "sum", "amax", "amin", "max", "min", "var", "std", "linalg_vector_norm"), _reduce),
    **dict.fromkeys(("zeros", "ones", "full", "empty", "new_zeros", "new_ones"), _create),
}
