"""Operators that move, cut and glue axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch.fx import Node

from edgeopt.compress.pruning.axes import Atom, Axis, Value, fixed, size_of
from edgeopt.compress.pruning.tracer import Rule, Split, Tracer, op_name

__all__ = ["LAYOUT_RULES"]

Args = Mapping[str, Any]


def _same(tracer: Tracer, node: Node, args: Args) -> Any:  # noqa: ARG001  (Rule's form)
    return tracer.axes(node.args[0])


def _reshape(tracer: Tracer, node: Node, args: Args) -> Any:  # noqa: ARG001
    """The finest common partition of both shapes; an atom that it splits leaves one removable part."""
    source = tracer.axes(node.args[0])
    wanted = tracer.shape(node)
    atoms = [atom for axis in source for atom in axis if atom.size != 1]
    made: list[Axis] = []
    rest: list[Atom] = []
    number = 0
    for size in wanted:
        parts: list[Atom] = []
        need = size
        while need > 1:
            if not rest:
                if not atoms:
                    return tracer.give_up(node, f"{op_name(node)} takes it apart")
                atom = atoms.pop(0)
                sizes = _partition(atom.size, need, wanted[len(made) + 1 :], atom.units is not None)
                if sizes is None:
                    return tracer.give_up(node, f"{op_name(node)} takes it apart")
                rest = _split(tracer, node, number, atom, sizes) if len(sizes) > 1 else [atom]
                number += 1
            part = rest.pop(0)
            if need % part.size:
                return tracer.give_up(node, f"{op_name(node)} takes it apart")
            parts.append(part)
            need //= part.size
        made.append(tuple(parts) or fixed(1))
    return tuple(made)


def _partition(size: int, need: int, following: Sequence[int], tracked: bool) -> list[int] | None:
    """The factors that the output's axes cut an atom of ``size`` into, the first of which must fill ``need``."""
    if need % size == 0:
        return [size]
    factors: list[int] = []
    left = size
    for wanted in (need, *following):
        if left == 1:
            break
        factor = wanted if left % wanted == 0 else left if wanted % left == 0 else 0
        if factor == 0:
            factor = math.gcd(left, wanted)
            if factor == 1 or not tracked:
                return None
        if factor > 1:
            factors.append(factor)
        left //= factor
    return factors if left == 1 else None


def _split(tracer: Tracer, node: Node, number: int, atom: Atom, sizes: Sequence[int]) -> list[Atom]:
    """One atom as several, of which one keeps units: each of its indices ties all that lie under it."""
    if atom.units is None:
        return [Atom(size) for size in sizes]
    # Heads lie outside what a head holds, on the last axis. Of channels before spatial axes the larger part is chosen.
    last = size_of(tracer.axes(node.args[0])[-1]) % atom.size == 0 and any(
        a is atom for a in tracer.axes(node.args[0])[-1]
    )
    order = list(range(len(sizes))) if last else sorted(range(len(sizes)), key=lambda place: -sizes[place])
    key = f"{node.name}/{number}"
    choice = tracer.choices.get(key, 0)
    if choice >= len(order):
        tracer.units.pin(atom.units, f"{op_name(node)} splits it and no part can be removed")
        tracer.splits[key] = Split(options=len(order), units=None)
        return [Atom(size) for size in sizes]
    chosen = order[choice]
    box = np.moveaxis(atom.units.reshape(sizes), chosen, 0).reshape(sizes[chosen], -1)
    for place in range(1, box.shape[1]):
        tracer.units.join(box[:, 0], box[:, place])
    units = np.ascontiguousarray(box[:, 0])
    tracer.splits[key] = Split(options=len(order), units=units)
    return [Atom(size, units if place == chosen else None) for place, size in enumerate(sizes)]


def _permute(tracer: Tracer, node: Node, args: Args) -> Value:
    source = tracer.axes(node.args[0])
    return tuple(source[int(axis)] for axis in args["dims"])


def _transpose(tracer: Tracer, node: Node, args: Args) -> Value:
    source = list(tracer.axes(node.args[0]))
    first, second = (int(args[key]) for key in (("dim0", "dim1") if "dim0" in args else ("axis0", "axis1")))
    source[first], source[second] = source[second], source[first]
    return tuple(source)


def _matrix_transpose(tracer: Tracer, node: Node, args: Args) -> Value:  # noqa: ARG001
    return tuple(reversed(tracer.axes(node.args[0])))


def _unsqueeze(tracer: Tracer, node: Node, args: Args) -> Value:
    source = list(tracer.axes(node.args[0]))
    place = int(args["dim"]) % (len(source) + 1)
    return (*source[:place], fixed(1), *source[place:])


def _squeeze(tracer: Tracer, node: Node, args: Args) -> Value:
    source = tracer.axes(node.args[0])
    dims = args.get("dim")
    places = (
        range(len(source))
        if dims is None
        else [int(d) % len(source) for d in (dims if isinstance(dims, (list, tuple)) else [dims])]
    )
    return tuple(axis for place, axis in enumerate(source) if place not in places or size_of(axis) != 1)


def _expand(tracer: Tracer, node: Node, args: Args) -> Value:  # noqa: ARG001
    source, wanted = tracer.axes(node.args[0]), tracer.shape(node)
    new = len(wanted) - len(source)
    return tuple(
        source[place - new] if place >= new and size_of(source[place - new]) == size else fixed(size)
        for place, size in enumerate(wanted)
    )


def _repeat(tracer: Tracer, node: Node, args: Args) -> Value:
    source, wanted = tracer.axes(node.args[0]), tracer.shape(node)
    new = len(wanted) - len(source)
    made: list[Axis] = [fixed(size) for size in wanted[:new]]
    for axis, size in zip(source, wanted[new:], strict=True):
        times = size // size_of(axis) if size_of(axis) else 1
        made.append(axis if times == 1 else (Atom(times), *axis))
    del args
    return tuple(made)


def _repeat_interleave(tracer: Tracer, node: Node, args: Args) -> Any:
    if not isinstance(args.get("repeats"), int) or args.get("dim") is None:
        return tracer.give_up(node, "repeat_interleave repeats it unevenly")
    source = list(tracer.axes(node.args[0]))
    place = int(args["dim"])
    source[place] = (*source[place], Atom(int(args["repeats"])))
    return tuple(source)


def _cat(tracer: Tracer, node: Node, args: Args) -> Value:  # noqa: ARG001
    parts = [tracer.axes(part) for part in args["tensors"]]
    parts = [part for part in parts if len(part) > 1 or size_of(part[0])]
    place = int(args["dim"] or 0) % len(parts[0])
    made: list[Axis] = []
    for axis in range(len(parts[0])):
        if axis != place:
            joined = parts[0][axis]
            for other in parts[1:]:
                joined = tracer.units.tie(joined, other[axis], "cat")
            made.append(joined)
            continue
        vectors = [(size_of(part[axis]), tracer.units.flat(part[axis], "cat")) for part in parts]
        if all(vector is None for _, vector in vectors):
            made.append(fixed(sum(size for size, _ in vectors)))
        else:
            made.append(_joined(tracer, vectors))
    return tuple(made)


def _joined(tracer: Tracer, vectors: Sequence[tuple[int, Any]]) -> Axis:
    """One axis of several; indices that stay get pinned units of their own."""
    parts = []
    for size, vector in vectors:
        if vector is None:
            if size > 1 << 20:
                for _, other in vectors:
                    tracer.units.pin(other, "cat joins it with an axis of open size")
                return fixed(sum(one for one, _ in vectors))
            tracer.units.pin(stays := tracer.units.fresh(size), "it is not made by a layer")
            parts.append(stays)
        else:
            parts.append(vector)
    units = np.concatenate(parts)
    return (Atom(len(units), units),)


def _stack(tracer: Tracer, node: Node, args: Args) -> Value:  # noqa: ARG001
    parts = [tracer.axes(part) for part in args["tensors"]]
    joined = list(parts[0])
    for other in parts[1:]:
        joined = [tracer.units.tie(a, b, "stack") for a, b in zip(joined, other, strict=True)]
    place = int(args["dim"] or 0) % (len(joined) + 1)
    return (*joined[:place], fixed(len(parts)), *joined[place:])


def _pieces(tracer: Tracer, node: Node, args: Args) -> tuple[Value, ...]:
    """split, chunk and their kin: parts of an axis, whose sizes the cut writes down."""
    source = tracer.axes(node.args[0])
    place = int(args["dim"] or 0) % len(source)
    sizes = [tracer.size(one.shape[place]) for one in node.meta["val"]]
    atoms = source[place]
    units = tracer.units.flat(atoms, op_name(node))
    made, first = [], 0
    for size in sizes:
        part = fixed(size) if units is None else (Atom(size, units[first : first + size]),)
        made.append((*source[:place], part, *source[place + 1 :]))
        first += size
    return tuple(made)


def _unbind(tracer: Tracer, node: Node, args: Args) -> tuple[Value, ...]:
    source = tracer.axes(node.args[0])
    place = int(args["dim"] or 0) % len(source)
    tracer.units.pin_all([source[place]], f"{op_name(node)} takes it apart index by index")
    rest = (*source[:place], *source[place + 1 :])
    return tuple(rest for _ in node.meta["val"])


def _select(tracer: Tracer, node: Node, args: Args) -> Value:
    source = tracer.axes(node.args[0])
    place = int(args["dim"]) % len(source)
    tracer.units.pin_all([source[place]], "select takes one index of it")
    return (*source[:place], *source[place + 1 :])


def _slice(tracer: Tracer, node: Node, args: Args) -> Value:
    source = tracer.axes(node.args[0])
    place = int(args["dim"] or 0) % len(source)
    size = tracer.shape(node)[place]
    if size == size_of(source[place]):
        return source
    units = tracer.units.flat(source[place], "slice")
    part = fixed(size)
    if units is not None:
        ends = (args["start"], args["end"], args["step"])
        if all(end is None or isinstance(end, int) for end in ends) and (args["step"] or 1) == 1:
            part = (Atom(size, units[slice(args["start"], args["end"])]),)
        else:
            tracer.units.pin(units, "slice takes every second index of it, or so")
    return (*source[:place], part, *source[place + 1 :])


def _pixel_shuffle(tracer: Tracer, node: Node, args: Args) -> Value:
    source, shape = tracer.axes(node.args[0]), tracer.shape(node)
    units = tracer.units.flat(source[-3], "pixel_shuffle")
    channels = fixed(shape[-3])
    if units is not None:
        box = units.reshape(shape[-3], int(args["upscale_factor"]) ** 2)
        for place in range(1, box.shape[1]):
            tracer.units.join(box[:, 0], box[:, place])
        channels = (Atom(shape[-3], np.ascontiguousarray(box[:, 0])),)
    return (*source[:-3], channels, *(fixed(size) for size in shape[-2:]))


LAYOUT_RULES: dict[str, Rule] = {
    **dict.fromkeys(
        (
            "clone",
            "contiguous",
            "detach",
            "alias",
            "to",
            "_to_copy",
            "dropout",
            "feature_dropout",
            "lift_fresh_copy",
            "type_as",
        ),
        _same,
    ),
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "flatten", "unflatten", "view_copy"), _reshape),
    "permute": _permute,
    "transpose": _transpose,
    "swapaxes": _transpose,
    **dict.fromkeys(("t", "numpy_T"), _matrix_transpose),
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    "expand": _expand,
    "expand_as": _expand,
    "repeat": _repeat,
    "repeat_interleave": _repeat_interleave,
    **dict.fromkeys(("cat", "concat"), _cat),
    "stack": _stack,
    **dict.fromkeys(("split", "split_with_sizes", "chunk", "tensor_split"), _pieces),
    "unbind": _unbind,
    "select": _select,
    "slice": _slice,
    "pixel_shuffle": _pixel_shuffle,
}
