"""Spare torch's exporter its tracing of a program in which it would find nothing to decompose.

``torch.onnx.export`` decomposes every program by tracing it again: two thirds of the time that a quantized graph takes, as each
QuantizeLinear is traced too. What edgeopt's quantization returns has been traced already, is functional, and consists of
operations that ONNX has, but for an average pool to a single value.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Container, Mapping
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Graph, GraphModule, Node

__all__ = ["spare_decomposition"]

A = torch.ops.aten
# Operations that run_decompositions takes apart though no table of it names them.
_IMPLICIT = (A.batch_norm.default, A.instance_norm.default, A.group_norm.default, A.adaptive_avg_pool3d.default)
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
    if not isinstance(target, torch._ops.OpOverload) or target in _IMPLICIT:  # noqa: SLF001
        return False
    return target not in table and not target._schema.is_mutable  # noqa: SLF001


def _is_to_one(node: Node) -> bool:
    """Whether an average pool leaves one value, which torch writes as a mean."""
    sizes = node.args[1]
    return isinstance(sizes, list | tuple) and all(isinstance(size, int) and size == 1 for size in sizes)


def _copied(program: ExportedProgram) -> ExportedProgram:
    """A program of its own graph, as the exporter changes what it is given; weights are shared."""
    graph = copy.deepcopy(program.graph)
    for mine, its in zip(graph.nodes, program.graph.nodes, strict=True):
        mine.name = its.name  # a copy renames what has the name of a Python builtin, "input" say
    _write_means(graph)
    return ExportedProgram(
        root=GraphModule(program.graph_module, graph),
        graph=graph,
        graph_signature=copy.deepcopy(program.graph_signature),
        state_dict=program.state_dict,
        range_constraints=copy.copy(program.range_constraints),
        module_call_graph=program.module_call_graph,
        example_inputs=program.example_inputs,
        constants=program.constants,
    )


def _write_means(graph: Graph) -> None:
    """Average pools to one value as torch decomposes them; in 1-D behind a dimension put in and taken out again."""
    for node in [node for node in graph.nodes if node.target in _POOLS]:
        flat = node.target == A.adaptive_avg_pool1d.default
        with graph.inserting_before(node):
            value = _call(graph, node, A.unsqueeze.default, node.args[0], -2) if flat else node.args[0]
            value = _call(graph, node, A.mean.dim, value, [-1, -2], True)
            value = _call(graph, node, A.squeeze.dim, value, -2) if flat else value
        node.replace_all_uses_with(value)
        graph.erase_node(node)
        value.name = node.name  # the signature names it where it is an output


def _call(graph: Graph, like: Node, target: Any, *args: Any) -> Node:
    """A new call with its fake value, at the place in the module tree of ``like``."""
    made = graph.call_function(target, args)
    with like.meta["val"].fake_mode:
        made.meta["val"] = target(*torch.fx.map_arg(args, lambda n: n.meta["val"]))
    for key in ("nn_module_stack", "stack_trace", "source_fn_stack", "torch_fn"):
        if key in like.meta:
            made.meta[key] = like.meta[key]
    return made
