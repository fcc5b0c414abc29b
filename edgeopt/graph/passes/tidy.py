"""Put a graph into one canonical form: nothing dead, every node named, initializers sorted."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common

from edgeopt.graph.qdq import NAME_KEY

__all__ = ["Tidy"]


class Tidy(ir.passes.InPlacePass):
    """Remove dead nodes and initializers, sort what has no order of its own."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Clean every graph of the model."""
        before = sum(1 for graph in model.graphs() for _ in graph)
        common.RemoveUnusedNodesPass()(model)
        common.RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
        common.RemoveUnusedOpsetsPass()(model)
        common.TopologicalSortPass()(model)
        for graph in model.graphs():
            _name_nodes(graph)
            values = sorted(graph.initializers.items())
            graph.initializers.clear()
            graph.initializers.update(values)
        after = sum(1 for graph in model.graphs() for _ in graph)
        return ir.passes.PassResult(model, modified=before != after)


def _name_nodes(graph: ir.Graph | ir.Function) -> None:
    """A node is named after what it makes, which is unique already; one that stands for another keeps that one's name."""
    for node in graph:
        made = f"{node.op_type}:{node.outputs[0].name}" if node.outputs else node.op_type
        node.name = node.metadata_props.get(NAME_KEY, made)
