"""The program as a plain graph that torchao's pt2e reads rightly: functional, one form per op, foldable BatchNorms."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from edgeopt.compress.attributes import SOURCE_KEY, constant, constant_nodes, copy_constant, evaluate

__all__ = ["BATCH_NORMS", "CONVS", "CONV_TRANSPOSES", "mutates", "normalize"]

A = torch.ops.aten
CONVS = (A.conv1d.default, A.conv1d.padding, A.conv2d.default, A.conv2d.padding)
CONV_TRANSPOSES = (A.conv_transpose1d.default, A.conv_transpose2d.input)
BATCH_NORMS = (A.batch_norm.default, A._native_batch_norm_legit_no_training.default)  # noqa: SLF001


def normalize(program: ExportedProgram, *, split_attention: bool) -> GraphModule:
    """A graph module that computes what ``program`` computes; ``program`` keeps its own graph and weights.

    Args:
        program: In eval mode; of either IR of ``torch.export`` (``conv2d``/``linear`` or ``convolution``/``addmm``).
        split_attention: Whether to write unmasked scaled-dot-product attention as two matmuls and a softmax, so that
            the matmuls can be quantized.
    """
    if any(mutates(node) for node in program.graph.nodes):
        # An in-place op changes what earlier readers of its input see once a Q stands between them.
        program = program.run_decompositions({})
    model = program.module(check_guards=False)
    _unify_linear(model)
    _unify_conv(model)
    _fold_weights(model)
    if split_attention:
        _split_attention(model)
    _separate_batch_norms(model)
    model.graph.eliminate_dead_code()
    model.graph.lint()
    model.recompile()
    return model


def mutates(node: Node) -> bool:
    """Whether a call changes one of its arguments."""
    schema = getattr(node.target, "_schema", None)
    return node.op == "call_function" and schema is not None and schema.is_mutable


def _unify_linear(model: GraphModule) -> None:
    """``addmm``, ``mm``, ``matmul`` and ``bmm`` with a constant matrix are linear layers."""
    constants = constant_nodes(model.graph)
    for node in list(model.graph.nodes):
        bias: Any = None
        if node.target == A.addmm.default and not node.kwargs:
            bias, x, matrix = node.args
            if bias not in constants or bias.meta["val"].ndim != 1:
                continue
        elif node.target in (A.mm.default, A.matmul.default, A.bmm.default):
            x, matrix = node.args
            matrix = _without_broadcast(matrix)
        else:
            continue
        if matrix not in constants or x in constants or matrix.meta["val"].ndim != 2:
            continue
        with model.graph.inserting_before(node):
            weight = _transposed(model, matrix)
            linear = model.graph.call_function(A.linear.default, (x, weight, bias))
        _replace(node, linear)


def _without_broadcast(factor: Node) -> Node:
    """The matrix that a factor repeats over the batch, as decomposition writes a linear layer; else the factor."""
    source = factor
    while source.target in (A.expand.default, A.view.default, A.clone.default) and isinstance(source.args[0], Node):
        inner = source.args[0]
        if tuple(inner.meta["val"].shape[-2:]) != tuple(source.meta["val"].shape[-2:]):
            return factor
        source = inner
    return source if source.meta["val"].ndim == 2 else factor


def _transposed(model: GraphModule, matrix: Node) -> Node:
    """A constant node with the transpose of a constant matrix; where the matrix is itself a transpose, its source."""
    if _is_transpose(matrix) and isinstance(matrix.args[0], Node):
        return matrix.args[0]
    return _folded(model, matrix, evaluate(model, matrix).t().contiguous())


def _is_transpose(matrix: Node) -> bool:
    """Whether a node swaps the two axes of a matrix."""
    if matrix.target == A.t.default:
        return True
    if matrix.target == A.transpose.int:
        first, second = matrix.args[1:]
        return {int(str(first)) % 2, int(str(second)) % 2} == {0, 1}
    return matrix.target == A.permute.default and str(matrix.args[1]) in {"[1, 0]", "[-1, 0]", "[1, -2]", "[-1, -2]"}


def _unify_conv(model: GraphModule) -> None:
    """``aten.convolution`` (what decomposition makes of every conv) is one of conv1d, conv2d, conv_transpose."""
    for node in list(model.graph.nodes):
        if node.target != A.convolution.default:
            continue
        x, weight, bias, stride, padding, dilation, transposed, output_padding, groups = node.args
        spatial = len(stride)
        if spatial > 2:
            continue
        with model.graph.inserting_before(node):
            if transposed:
                target = A.conv_transpose1d.default if spatial == 1 else A.conv_transpose2d.input
                arguments: tuple[Any, ...] = (x, weight, bias, stride, padding, output_padding, groups, dilation)
            else:
                target = A.conv1d.default if spatial == 1 else A.conv2d.default
                arguments = (x, weight, bias, stride, padding, dilation, groups)
            conv = model.graph.call_function(target, arguments)
        _replace(node, conv)


def _fold_weights(model: GraphModule) -> None:
    """A weight that is computed from parameters alone (a chunk, weight norm) becomes a constant."""
    constants = constant_nodes(model.graph)
    for node in list(model.graph.nodes):
        if node.target not in (*CONVS, *CONV_TRANSPOSES, A.linear.default):
            continue
        for position in range(1, min(3, len(node.args))):
            operand = node.args[position]
            if isinstance(operand, Node) and operand.op != "get_attr" and operand in constants:
                with model.graph.inserting_before(node):
                    node.update_arg(position, _folded(model, operand, evaluate(model, operand).contiguous()))


def _folded(model: GraphModule, node: Node, value: torch.Tensor) -> Node:
    sources = [n for n in _ancestors(node) if n.op == "get_attr"]
    named = [n for n in sources if "weight" in str(n.target)] or sources
    origin = str(named[0].target)
    made = constant(model, f"{origin}_folded", value.clone())
    made.meta[SOURCE_KEY] = origin
    return made


def _ancestors(node: Node) -> list[Node]:
    found: dict[Node, None] = {}
    pending = [node]
    while pending:
        current = pending.pop()
        if current not in found:
            found[current] = None
            pending.extend(reversed(current.all_input_nodes))
    return list(found)


def _split_attention(model: GraphModule) -> None:
    """softmax(q·kᵀ/√d)·v (Vaswani et al. 2017, eq. 1), where it is one op without mask, causality or dropout."""
    for node in list(model.graph.nodes):
        if node.target != A.scaled_dot_product_attention.default or not _is_plain_attention(node):
            continue
        query, key, value = node.args[:3]
        scale = node.kwargs.get("scale") or 1.0 / math.sqrt(query.meta["val"].shape[-1])
        graph = model.graph
        with graph.inserting_before(node):
            scaled = _call(graph, A.mul.Tensor, (query, float(scale)), node)
            swapped = _call(graph, A.transpose.int, (key, -2, -1), node)
            scores = _call(graph, A.matmul.default, (scaled, swapped), node)
            shares = _call(graph, A.softmax.int, (scores, -1), node)
            result = graph.call_function(A.matmul.default, (shares, value))
        _replace(node, result)


def _is_plain_attention(node: Node) -> bool:
    given: list[Any] = list(node.args[3:6])
    mask, dropout, causal = given + [None, 0.0, False][len(given) :]
    return (
        node.kwargs.get("attn_mask", mask) is None
        and not node.kwargs.get("dropout_p", dropout)
        and not node.kwargs.get("is_causal", causal)
        and not node.kwargs.get("enable_gqa", False)
        and isinstance(node.args[0].meta["val"].shape[-1], int)  # type: ignore[union-attr]
    )


def _separate_batch_norms(model: GraphModule) -> None:
    """Give each BatchNorm a layer and weights of its own.

    torchao folds a BatchNorm into the layer before it without asking who else reads that layer's output or its
    weights; both are then changed for all readers.
    """
    foldable = (*CONVS, *CONV_TRANSPOSES, A.linear.default)
    for norm in list(model.graph.nodes):
        if norm.target not in BATCH_NORMS or norm.args[0].target not in foldable:
            continue
        layer = norm.args[0]
        with model.graph.inserting_before(norm):
            if len(layer.users) > 1:
                own = model.graph.node_copy(layer)
                norm.replace_input_with(layer, own)
                layer = own
        with model.graph.inserting_before(layer):
            for position in range(1, min(3, len(layer.args))):
                operand = layer.args[position]
                if isinstance(operand, Node) and operand.op == "get_attr" and _readers(model, operand) > 1:
                    layer.update_arg(position, copy_constant(model, operand))


def _readers(model: GraphModule, node: Node) -> int:
    same = (n for n in model.graph.nodes if n.op == "get_attr" and n.target == node.target)
    return sum(len(n.users) for n in same)


def _call(graph: torch.fx.Graph, target: Any, args: tuple[Any, ...], like: Node) -> Node:
    """A new node with the shape metadata that torchao asks for, and the place in the module tree of ``like``."""
    made = graph.call_function(target, args)
    example = torch.fx.map_arg(args, lambda n: n.meta["val"])
    with like.meta["val"].fake_mode:
        made.meta["val"] = target(*example)
    _place(made, like)
    return made


def _place(made: Node, like: Node) -> None:
    for key in ("nn_module_stack", "stack_trace"):
        if key in like.meta:
            made.meta[key] = like.meta[key]


def _replace(old: Node, new: Node) -> None:
    """Put ``new`` in the place of ``old``: its users, its metadata."""
    new.meta.update({key: old.meta[key] for key in ("val", "tensor_meta") if key in old.meta})
    _place(new, old)
    old.replace_all_uses_with(new)
    old.graph.erase_node(old)
