"""Copies of a program that can be changed while the program stays as it is."""

from __future__ import annotations

import copy
from typing import Any

from torch.export import ExportedProgram
from torch.fx import Graph, GraphModule

__all__ = ["copied_graph", "copied_program", "program_of"]


def copied_graph(graph: Graph) -> Graph:
    """A copy with the same names; what nodes say of themselves is shared, value by value."""
    made = copy.deepcopy(graph)
    for mine, its in zip(made.nodes, graph.nodes, strict=True):
        mine.name = its.name  # torch renames what has the name of a Python builtin, "input" say
    return made


def copied_program(program: ExportedProgram) -> ExportedProgram:
    """A program with a graph and with tensors of its own; one without parts that are graphs themselves."""
    state, constants = copy.deepcopy((program.state_dict, program.constants))  # at once: tied tensors stay tied
    return program_of(program, copied_graph(program.graph), state_dict=state, constants=constants)


def program_of(program: ExportedProgram, graph: Graph, **changes: Any) -> ExportedProgram:
    """A program that runs ``graph``, in all that ``changes`` does not name as ``program``, with whom it shares its tensors.

    Args:
        program: Read only.
        graph: Of the new program alone.
        changes: Arguments of ``ExportedProgram``: ``graph_signature``, ``state_dict``, ``constants``, ``module_call_graph``.
    """
    arguments: dict[str, Any] = {
        "graph_signature": copy.deepcopy(program.graph_signature),
        "state_dict": program.state_dict,
        "range_constraints": copy.copy(program.range_constraints),
        "module_call_graph": program.module_call_graph,
        "example_inputs": program.example_inputs,
        "constants": program.constants,
    }
    return ExportedProgram(root=GraphModule(program.graph_module, graph), graph=graph, **{**arguments, **changes})
