"""How much a graph multiplies, op by op: multiply-accumulates, half of what others call FLOPs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.fx import GraphModule, Node

from edgeopt.compress.normalize import CONV_TRANSPOSES, CONVS

__all__ = ["ShapeOf", "macs_of", "multiplications"]

A = torch.ops.aten
Shape = tuple[int, ...]
ShapeOf = Callable[[Any], Shape | None]
"""The shape of a node's value; None where it is no tensor or a size is not known."""


class _UnknownError(Exception):
    """A size is not known."""


def macs_of(node: Node, shape_of: ShapeOf) -> int | None:
    """Multiply-accumulates of one node on the whole batch, bias and pointwise work left out.

    None where the op multiplies nothing (or nothing that is known here), or a size is not known. The convention is
    that of ``torch.utils.flop_counter``, whose FLOPs are twice these: padding counts as if it were data, causal and
    masked attention as if it were full.
    """
    count = _COUNTS.get(node.target) if node.op == "call_function" else None
    if count is None:
        return None

    def known(value: Any) -> Shape:
        shape = shape_of(value)
        if shape is None:
            raise _UnknownError
        return shape

    try:
        return count(known(node) if node.target not in _TUPLES else (), _arguments(node), known)
    except _UnknownError:
        return None


def multiplications(graph: GraphModule) -> dict[str, int]:
    """Multiply-accumulates per sample of each layer and matrix product, by node name.

    An op whose shapes, but for the batch, are not known is left out.

    Args:
        graph: Its first input's first dimension is the batch.
    """
    batch = _batch(graph)
    per = batch if isinstance(batch, int) else 1

    def size(value: Any) -> int | None:
        if isinstance(value, int):
            return value
        expression = value.node.expr.subs({} if isinstance(batch, int) else {batch: 1})
        return int(expression) if expression.is_Integer else None

    def shape_of(value: Any) -> Shape | None:
        example = value.meta.get("val") if isinstance(value, Node) else None
        sizes = [size(one) for one in example.shape] if isinstance(example, torch.Tensor) else [None]
        return None if None in sizes else tuple(sizes)  # type: ignore[arg-type]

    counts = ((node.name, macs_of(node, shape_of)) for node in graph.graph.nodes)
    return {name: count // per for name, count in counts if count is not None}


def _batch(graph: GraphModule) -> Any:
    """The batch as a number or a symbol; 1 where there is none."""
    for node in graph.graph.find_nodes(op="placeholder"):
        example = node.meta.get("val")
        if isinstance(example, torch.Tensor) and example.ndim:
            size = example.shape[0]
            return max(size, 1) if isinstance(size, int) else size.node.expr
    return 1


def _arguments(node: Node) -> Mapping[str, Any]:
    """The arguments by their names in the schema."""
    schema = node.target._schema  # type: ignore[union-attr]  # noqa: SLF001
    names = (argument.name for argument in schema.arguments)
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}


_Known = Callable[[Any], Shape]
_Count = Callable[[Shape, Mapping[str, Any], _Known], int]


def _conv(out: Shape, arguments: Mapping[str, Any], known: _Known) -> int:
    if arguments.get("transposed", False):
        return _conv_transpose(out, arguments, known)
    return math.prod(out) * math.prod(known(arguments["weight"])[1:])  # weight: [out, in / groups, …]


def _conv_transpose(_: Shape, arguments: Mapping[str, Any], known: _Known) -> int:
    """Each input value meets its channel's kernels: weight [in, out / groups, …]."""
    return math.prod(known(arguments["input"])) * math.prod(known(arguments["weight"])[1:])


def _linear(out: Shape, arguments: Mapping[str, Any], known: _Known) -> int:
    return math.prod(out) * known(arguments["weight"])[-1]


def _product(left: str) -> _Count:
    """A matrix product whose left factor has that name: every output is a sum over its last axis."""
    return lambda out, arguments, known: math.prod(out) * known(arguments[left])[-1]


def _addbmm(_: Shape, arguments: Mapping[str, Any], known: _Known) -> int:
    return math.prod(known(arguments["batch1"])) * known(arguments["batch2"])[-1]


def _bilinear(out: Shape, arguments: Mapping[str, Any], known: _Known) -> int:
    _, first, second = known(arguments["weight"])
    return math.prod(out) * first * (second + 1)


def _attention(_: Shape, arguments: Mapping[str, Any], known: _Known) -> int:
    """Q times K, and the shares times V: query […, L, E], key […, S, E], value [S, V]."""
    query, key, value = (known(arguments[name]) for name in ("query", "key", "value"))
    return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _recurrent(_: Shape, arguments: Mapping[str, Any], known: _Known) -> int:
    """Each matrix of weights, once per step of each sequence."""
    source = arguments["input"] if "input" in arguments else arguments["data"]
    matrices = [shape for weight in arguments["params"] if len(shape := known(weight)) == 2]
    return math.prod(known(source)[:-1]) * sum(map(math.prod, matrices))


def _cell(_: Shape, arguments: Mapping[str, Any], known: _Known) -> int:
    matrices = [known(arguments[name]) for name in ("w_ih", "w_hh")]
    return math.prod(known(arguments["input"])[:-1]) * sum(map(math.prod, matrices))


def _einsum(_: Shape, arguments: Mapping[str, Any], known: _Known) -> int:
    """Contracted from left to right, as PyTorch does it without a path."""
    inputs, _arrow, output = str(arguments["equation"]).replace(" ", "").partition("->")
    terms = inputs.split(",")
    if "..." in inputs or not _arrow:
        raise _UnknownError
    sizes: dict[str, int] = {}
    for term, tensor in zip(terms, arguments["tensors"], strict=True):
        sizes |= {label: max(size, sizes.get(label, 1)) for label, size in zip(term, known(tensor), strict=True)}
    total, left = 0, set(terms[0])
    for number, term in enumerate(terms[1:], 2):
        both = left | set(term)
        total += math.prod(sizes[label] for label in both)
        left = both & set(output).union(*terms[number:])
    return total


_SDPA = (
    A.scaled_dot_product_attention.default,
    A._scaled_dot_product_flash_attention_for_cpu.default,  # noqa: SLF001
    A._scaled_dot_product_efficient_attention.default,  # noqa: SLF001
    A._scaled_dot_product_attention_math.default,  # noqa: SLF001
)
_RECURRENT = (
    *(A.gru.input, A.gru.data, A.lstm.input, A.lstm.data),
    *(A.rnn_tanh.input, A.rnn_tanh.data, A.rnn_relu.input, A.rnn_relu.data),
)
_CELLS = (A.lstm_cell.default, A.gru_cell.default, A.rnn_tanh_cell.default, A.rnn_relu_cell.default)
_TUPLES = {*_SDPA, *_RECURRENT, *_CELLS}  # their counts do not need the output's shape, and it may be several
_COUNTS: dict[Any, _Count] = {
    **dict.fromkeys((*CONVS, A.conv3d.default, A.conv3d.padding, A.convolution.default), _conv),
    **dict.fromkeys((*CONV_TRANSPOSES, A.conv_transpose3d.input), _conv_transpose),
    A.linear.default: _linear,
    **dict.fromkeys((A.matmul.default, A.mm.default, A.bmm.default, A.mv.default, A.dot.default), _product("self")),
    A.addmm.default: _product("mat1"),
    A.baddbmm.default: _product("batch1"),
    A.addmv.default: _product("mat"),
    A.addbmm.default: _addbmm,
    A.bilinear.default: _bilinear,
    A.einsum.default: _einsum,
    **dict.fromkeys(_SDPA, _attention),
    **dict.fromkeys(_RECURRENT, _recurrent),
    **dict.fromkeys(_CELLS, _cell),
}
