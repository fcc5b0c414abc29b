"""Spare torch's exporter its tracing of a program in which it would find nothing to decompose.

``torch.onnx.export`` decomposes every program by tracing it again: two thirds of the time that a quantized graph takes, as each
QuantizeLinear is traced too. What ``torch.export`` and edgeopt's quantization return has been traced already, is functional, and
consists of operations that ONNX has, but for a BatchNorm and an average pool to a single value.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Container, Mapping
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Graph, Node

from edgeopt.model.copies import copied_graph, program_of

__all__ = ["spare_decomposition"]

A = torch.ops.aten
# Operations that run_decompositions takes apart though no table of it names them.
_IMPLICIT = (A.instance_norm.default, A.group_norm.default, A.adaptive_avg_pool3d.default)
_NORM = A._native_batch_norm_legit_no_training.default  # noqa: SLF001
_POOLS = (A.adaptive_avg_pool1d.default, A.adaptive_avg_pool2d.default)
_Table = Mapping[Any, Callable[..., Any]]


def spare_decomposition(program: ExportedProgram) -> ExportedProgram:
    """The same program, whose ``run_decompositions`` traces only where the table asks for it.

    What it returns then has the same operations, names and constants that tracing would give; ``program`` is not changed.
    """
    spared = copy.copy(program)

    def run_decompositions(decomp_table: _Table | None = None, **options: Any) -> ExportedProgram:
        if decomp_table is None or not _is_decomposed(program, decomp_table):
            made: ExportedProgram = program.run_decompositions(decomp_table, **options)
            return made
        return _copied(program)

    spared.run_decompositions = run_decompositions
    return spared


def _is_decomposed(program: ExportedProgram, table: Container[Any]) -> bool:
    signature = program.graph_signature
    if signature.buffers_to_mutate or signature.user_inputs_to_mutate or signature.input_tokens:
        return False
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    return all(_stays(node, table) for node in calls) and not any(n.op == "get_attr" for n in program.graph.nodes)


def _stays(node: Node, table: Container[Any]) -> bool:
    target = node.target
    if target is operator.getitem:
        return True
    if target in _POOLS:
        return _is_to_one(node)
    if target == A.batch_norm.default:
        return not node.kwargs and not node.args[5] and None not in node.args[3:5]
    if not isinstance(target, torch._ops.OpOverload) or target in _IMPLICIT:  # noqa: SLF001
        return False
    return target not in table and not target._schema.is_mutable  # noqa: SLF001


def _is_to_one(node: Node) -> bool:
    """Whether an average pool leaves one value, which torch writes as a mean."""
    sizes = node.args[1]
    return isinstance(sizes, list | tuple) and all(isinstance(size, int) and size == 1 for size in sizes)


def _copied(program: ExportedProgram) -> ExportedProgram:
    """A program of its own graph, as the exporter changes what it is given; weights are shared."""
    graph = copied_graph(program.graph)
    _write_means(graph)
    _write_norms(graph)
    return program_of(program, graph)


def _write_means(graph: Graph) -> None:
    """Average pools to one value as torch decomposes them; in 1-D behind a dimension put in and taken out again."""
    for node in [node for node in graph.nodes if node.target in _POOLS]:
        flat, result = node.target == A.adaptive_avg_pool1d.default, node.meta["val"]
        with graph.inserting_before(node), result.fake_mode:
            value = node.args[0]
            if flat:
                value = _call(graph, node, A.unsqueeze.default, (value, -2), value.meta["val"].unsqueeze(-2))
                value = _call(graph, node, A.mean.dim, (value, [-1, -2], True), result.unsqueeze(-2))
                value = _call(graph, node, A.squeeze.dim, (value, -2), result)
            else:
                value = _call(graph, node, A.mean.dim, (value, [-1, -2], True), result)
        _put(value, node)


def _write_norms(graph: Graph) -> None:
    """BatchNorms in eval mode as torch decomposes them."""
    for node in [node for node in graph.nodes if node.target == A.batch_norm.default]:
        x, weight, bias, mean, variance, _, momentum, eps = node.args[:8]
        result = node.meta["val"]
        with graph.inserting_before(node), result.fake_mode:
            saved = result.new_empty(0), result.new_empty(0)
            whole = _call(graph, node, _NORM, (x, weight, bias, mean, variance, momentum, eps), (result, *saved))
            _put(_call(graph, node, operator.getitem, (whole, 0), result), node)


def _call(graph: Graph, like: Node, target: Any, args: tuple[Any, ...], value: Any) -> Node:
    """A new call with its fake value, at the place in the module tree of ``like``."""
    made = graph.call_function(target, args)
    made.meta["val"] = value
    for key in ("nn_module_stack", "stack_trace", "source_fn_stack", "torch_fn"):
        if key in like.meta:
            made.meta[key] = like.meta[key]
    return made


def _put(new: Node, old: Node) -> None:
    """In the place of ``old``, under its name: the signature names it where it is an output."""
    old.replace_all_uses_with(new)
    old.graph.erase_node(old)
    new.name = old.name
