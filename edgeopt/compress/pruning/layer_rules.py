"""Operators that compute: what a layer's weight ties, and what cannot be removed around it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch.fx import Node

from edgeopt.compress.pruning.axes import Atom, Axis, Value, fixed, size_of
from edgeopt.compress.pruning.tracer import Cost, Rule, Tracer, op_name, parameter_of

__all__ = ["LAYER_RULES"]

Args = Mapping[str, Any]


def _conv(tracer: Tracer, node: Node, args: Args) -> Any:
    source, weight = tracer.axes(args["input"]), tracer.axes(args["weight"])
    spatial = len(weight) - 2
    channel = len(source) - spatial - 1
    groups = int(args["groups"] or 1)
    transposed = "transpose" in op_name(node) or bool(args.get("transposed"))
    tracer.units.pin_all([*source[channel + 1 :], *weight[2:]], "it is a spatial axis")
    rows, columns = weight[0], weight[1]
    if transposed:
        rows, columns = columns, rows
    into, out = (
        _grouped(tracer, node, source[channel], weight, groups, transposed=transposed)
        if groups > 1
        else (tracer.units.tie(columns, source[channel], op_name(node)), rows)
    )
    del into
    _reads(tracer, args["weight"], 0 if transposed else 1)
    _bias(tracer, node, args.get("bias"), out)
    _made(tracer, args["weight"], out)
    shape = tracer.shape(node)
    each = math.prod(size_of(axis) for axis in weight)
    positions = map(size_of, source[channel + 1 :]) if transposed else shape[channel + 1 :]
    batch = math.prod(map(size_of, source[:channel]))
    _cost(tracer, node, each * batch * math.prod(positions), weight[:2])
    return (*source[:channel], out, *(fixed(size) for size in shape[channel + 1 :]))


def _grouped(
    tracer: Tracer, node: Node, channels: Axis, weight: Sequence[Axis], groups: int, *, transposed: bool
) -> tuple[Axis, Axis]:
    """A grouped convolution: whole groups fall where each has one input channel, else the same channels of every group."""
    units, name = tracer.units, op_name(node)
    size = size_of(channels)
    source = units.flat(channels, name)
    if source is None:  # its input stays
        if size == groups:
            units.pin_all(weight[:1], f"{name} has one group for each channel of an axis that stays")
            if transposed:
                units.pin_all(weight[1:2], f"{name} has one group for each channel of an axis that stays")
            return channels, fixed(size_of(weight[0]) if not transposed else size_of(weight[1]) * groups)
        source = units.fresh(size)
        units.pin(source, "it is not made by a layer")
    if transposed:
        outputs = size_of(weight[1]) * groups
        units.join(_vector(tracer, weight[0]), source)
        if size == groups:  # [C, outputs per channel]
            units.pin_all(weight[1:2], f"{name} makes several outputs of each channel")
            out = np.repeat(source, outputs // groups)
        else:
            box = source.reshape(groups, -1)
            _join_rows(tracer, box)
            out = np.tile(_vector(tracer, weight[1]), groups)
        return channels, (Atom(outputs, out),)
    rows = _vector(tracer, weight[0])
    if size == groups:
        box = rows.reshape(groups, -1)
        for place in range(box.shape[1]):
            units.join(source, box[:, place])
        return channels, weight[0]
    box = source.reshape(groups, -1)
    _join_rows(tracer, box)
    units.join(box[0], _vector(tracer, weight[1]))
    _join_rows(tracer, rows.reshape(groups, -1))
    return channels, weight[0]


def _join_rows(tracer: Tracer, box: Any) -> None:
    for other in box[1:]:
        tracer.units.join(box[0], other)


def _vector(tracer: Tracer, axis: Axis) -> Any:
    """An axis as units; one without gets pinned ones."""
    found = tracer.units.flat(axis, "a layer")
    if found is None:
        found = tracer.units.fresh(size_of(axis))
        tracer.units.pin(found, "it is not made by a layer")
    return found


def _bias(tracer: Tracer, node: Node, bias: Any, out: Axis) -> None:
    if isinstance(bias, Node):
        tracer.units.tie(tracer.axes(bias)[-1], out, op_name(node))


def _made(tracer: Tracer, weight: Any, out: Axis) -> None:
    name, units = parameter_of(weight), tracer.units.flat(out, "a layer")
    if name is not None and units is not None:
        tracer.made.append((name, units))


def _reads(tracer: Tracer, weight: Any, axis: int) -> None:
    """Note along which axis of a parameter channels are read; one that is computed from others has none."""
    if isinstance(weight, Node) and weight.op == "get_attr":
        tracer.reads.add((str(weight.target), axis))


def _cost(tracer: Tracer, node: Node, macs: int, axes: Sequence[Axis]) -> None:
    """``macs`` of the whole batch; they are proportional to ``axes``."""
    factors = tuple(atom.units for axis in axes for atom in axis if atom.units is not None)
    tracer.costs.append(Cost(node=node.name, macs=tracer.per_sample(macs), factors=factors))


def _linear(tracer: Tracer, node: Node, args: Args) -> Value:
    source, weight = tracer.axes(args["input"]), tracer.axes(args["weight"])
    if len(weight) == 1:
        tracer.units.tie(weight[0], source[-1], "linear")
        return source[:-1]
    tracer.units.tie(weight[1], source[-1], "linear")
    out = weight[0]
    _reads(tracer, args["weight"], 1)
    _bias(tracer, node, args["bias"], out)
    _made(tracer, args["weight"], out)
    _cost(tracer, node, size_of(weight[0]) * size_of(weight[1]) * math.prod(map(size_of, source[:-1])), weight)
    return (*source[:-1], out)


def _addmm(tracer: Tracer, node: Node, args: Args) -> Value:
    made = _product(tracer, node, tracer.axes(args["mat1"]), tracer.axes(args["mat2"]))
    _made(tracer, args["mat2"], made[-1])
    _reads(tracer, args["mat2"], 0)
    _bias(tracer, node, args["self"], made[-1])
    return made


def _matmul(tracer: Tracer, node: Node, args: Args) -> Any:
    first, second = node.args[:2]
    made = _product(tracer, node, tracer.axes(first), tracer.axes(second))
    del args
    if made:
        _made(tracer, second, made[-1])
        _reads(tracer, second, len(tracer.axes(second)) - 2)
    return made


def _product(tracer: Tracer, node: Node, left: Value, right: Value) -> Value:
    """Of matrices, or of batches of them: [..., M, K] × [..., K, N]."""
    name = op_name(node)
    if len(left) == 1 or len(right) == 1:
        inner = tracer.units.tie(left[-1], right[max(len(right) - 2, 0)], name)
        made: Value = (*right[:-2], right[-1]) if len(left) == 1 and len(right) > 1 else left[:-1]
        _cost(tracer, node, math.prod(map(size_of, made)) * size_of(inner), (*made, inner))
        return made
    inner = tracer.units.tie(left[-1], right[-2], name)
    rank = max(len(left), len(right)) - 2
    batch: list[Axis] = [fixed(1)] * rank
    for part in (left[:-2], right[:-2]):
        for place, axis in enumerate(part, rank - len(part)):
            batch[place] = tracer.units.tie(batch[place], axis, name)
    axes = (*batch, left[-2], inner, right[-1])
    _cost(tracer, node, math.prod(map(size_of, axes)), axes)
    return (*batch, left[-2], right[-1])


def _attention(tracer: Tracer, node: Node, args: Args) -> Value:
    """[..., L, E], [..., S, E], [..., S, V] → [..., L, V]; the cut writes down the scale that E gave."""
    query, key, value = (tracer.axes(args[name]) for name in ("query", "key", "value"))
    name = op_name(node)
    batch = [tracer.units.tie(a, b, name) for a, b in zip(query[:-2], key[:-2], strict=True)]
    batch = [tracer.units.tie(a, b, name) for a, b in zip(batch, value[:-2], strict=True)]
    inner = tracer.units.tie(query[-1], key[-1], name)
    tracer.units.pin_all([query[-2], key[-2], value[-2]], "it is an axis of tokens")
    if isinstance(args["attn_mask"], Node):
        mask = tracer.axes(args["attn_mask"])
        for place, axis in enumerate(mask[:-2], len(batch) - len(mask) + 2):
            batch[place] = tracer.units.tie(batch[place], axis, name)
    for right, out in ((inner, size_of(key[-2])), (value[-1], size_of(key[-2]))):
        macs = math.prod(map(size_of, batch)) * size_of(query[-2]) * size_of(right) * out
        _cost(tracer, node, macs, (*batch, right))
    return (*batch, query[-2], value[-1])


def _batch_norm(tracer: Tracer, node: Node, args: Args) -> Any:
    source = tracer.axes(args["input"])
    channels = source[1]
    for name in ("weight", "bias", "running_mean", "running_var"):
        if isinstance(args.get(name), Node):
            channels = tracer.units.tie(channels, tracer.axes(args[name])[0], op_name(node))
    if (scale := parameter_of(args["weight"])) is not None:
        tracer.norms.add(scale)
    made = (source[0], channels, *source[2:])
    return made if "no_training" not in op_name(node) and "native" not in op_name(node) else (made, (), ())


def _layer_norm(tracer: Tracer, node: Node, args: Args) -> Any:
    """The remaining channels get another mean: removing one is not the same as its being zero."""
    source = list(tracer.axes(args["input"]))
    normalized = len(args["normalized_shape"])
    if normalized > 1:
        tracer.units.pin_all(source[-normalized:], "a LayerNorm over several axes reads it")
        for name in ("weight", "bias"):
            if isinstance(args.get(name), Node):
                tracer.units.pin_all(tracer.axes(args[name]), "a LayerNorm over several axes reads it")
    else:
        for name in ("weight", "bias"):
            if isinstance(args.get(name), Node):
                source[-1] = tracer.units.tie(source[-1], tracer.axes(args[name])[0], op_name(node))
        for atom in source[-1]:
            tracer.units.mark_inexact(atom.units)
    made = tuple(source)
    return (made, (), ()) if op_name(node) == "native_layer_norm" else made


def _group_norm(tracer: Tracer, node: Node, args: Args) -> Any:
    """The same channels of every group, so that the groups stay equal."""
    source, name = tracer.axes(args["input"]), op_name(node)
    units = tracer.units.flat(source[1], name)
    groups = int(args["num_groups"] if "num_groups" in args else args["group"])
    channels = source[1]
    for key in ("weight", "bias"):
        if isinstance(args.get(key), Node):
            channels = tracer.units.tie(channels, tracer.axes(args[key])[0], name)
    if units is not None:
        if size_of(source[1]) == groups:
            pass  # an instance norm
        else:
            _join_rows(tracer, units.reshape(groups, -1))
            tracer.units.mark_inexact(units)
        if size_of(source[1]) == groups:
            tracer.units.pin(units, "group_norm has one group for each channel")
    made = (source[0], channels, *source[2:])
    return (made, (), ()) if name == "native_group_norm" else made


def _prelu(tracer: Tracer, node: Node, args: Args) -> Value:  # noqa: ARG001
    source, weight = list(tracer.axes(args["self"])), tracer.axes(args["weight"])
    if weight and size_of(weight[0]) > 1:
        place = min(1, len(source) - 1)
        source[place] = tracer.units.tie(source[place], weight[0], "prelu")
    return tuple(source)


def _embedding(tracer: Tracer, node: Node, args: Args) -> Value:  # noqa: ARG001
    rows, columns = tracer.axes(args["weight"])
    tracer.units.pin_all([rows], "it is looked up by index")
    units, name = tracer.units.flat(columns, "embedding"), parameter_of(args["weight"])
    if units is not None and name is not None:
        tracer.made.append((name, units))
    return (*tracer.axes(args["indices"]), columns)


def _recurrent(tracer: Tracer, node: Node, args: Args) -> Any:
    """GRU, LSTM and RNN. All layers and directions share one hidden size: a unit is the same row everywhere."""
    name, units = op_name(node), tracer.units
    state = args["hx"]
    states = [tracer.axes(one) for one in (state if isinstance(state, (list, tuple)) else [state])]
    if "batch_sizes" in args:
        return tracer.give_up(node, f"a packed {name} reads it")
    source, tensors = tracer.axes(args["input"]), list(args["params"])
    per = 4 if args["has_biases"] else 2
    gates = {"lstm": 4, "gru": 3}.get(name, 1)
    layers = int(args["num_layers"]) * (2 if args["bidirectional"] else 1)
    if len(tensors) != layers * per:
        return tracer.give_up(node, f"an {name} with projections reads it")
    hidden = tracer.axes(tensors[1])[1]
    row = _vector(tracer, hidden)
    for one in states:
        units.tie(one[-1], hidden, name)
        units.pin_all(one[:-1], f"it is {name}'s count of layers, or its batch")
    into = source[-1]
    time = math.prod(map(size_of, source[:-1]))
    for layer in range(layers):
        if layer and (not args["bidirectional"] or layer % 2 == 0):
            into = (Atom(len(row), row),) if not args["bidirectional"] else (Atom(2 * len(row), np.tile(row, 2)),)
        ih, hh, *biases = (tracer.axes(one) for one in tensors[layer * per : layer * per + per])
        units.tie(ih[1], into, name)
        units.tie(hh[1], hidden, name)
        for axis in (ih[0], hh[0], *(bias[0] for bias in biases)):
            units.join(np.tile(row, gates), _vector(tracer, axis))
        _reads(tracer, tensors[layer * per], 1)
        _reads(tracer, tensors[layer * per + 1], 1)
        for weight in (ih, hh):
            _cost(tracer, node, size_of(weight[0]) * size_of(weight[1]) * time, weight)
        if (made := parameter_of(tensors[layer * per])) is not None:
            tracer.made.append((made, row))
    last = (Atom(2 * len(row), np.tile(row, 2)),) if args["bidirectional"] else (Atom(len(row), row),)
    outputs: tuple[Value, ...] = ((*source[:-1], last),)
    for one in states:
        outputs = (*outputs, (*one[:-1], (Atom(len(row), row),)))
    return outputs


LAYER_RULES: dict[str, Rule] = {
    **dict.fromkeys(
        ("conv1d", "conv2d", "conv3d", "convolution", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), _conv
    ),
    "linear": _linear,
    "addmm": _addmm,
    **dict.fromkeys(("matmul", "mm", "bmm"), _matmul),
    "scaled_dot_product_attention": _attention,
    **dict.fromkeys(("batch_norm", "_native_batch_norm_legit_no_training"), _batch_norm),
    **dict.fromkeys(("layer_norm", "native_layer_norm", "rms_norm"), _layer_norm),
    **dict.fromkeys(("group_norm", "native_group_norm"), _group_norm),
    **dict.fromkeys(("prelu", "_prelu_kernel"), _prelu),
    "embedding": _embedding,
    **dict.fromkeys(("gru", "lstm", "rnn_tanh", "rnn_relu"), _recurrent),
}
