"""Means keep their axes: ReduceMean(keepdims=0) becomes ReduceMean(keepdims=1), then Squeeze.

XNNPACK's global average pool keeps the axes of length 1; without them the mean is another runtime's operation and parts
the graph in two. A Q behind the Squeeze can then be moved in front of it, right behind the mean.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgeopt.graph.qdq import add_initializer, array_of

__all__ = ["KeepDims"]


class KeepDims(ir.passes.InPlacePass):
    """Rewrite every mean over named axes; the values stay the same."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite where the axes are constant."""
        modified = False
        for node in list(model.graph):
            if node.op_type == "ReduceMean" and node.attributes.get_int("keepdims", 1) == 0:
                modified = _rewrite(model.graph, node) or modified
        return ir.passes.PassResult(model, modified)


def _rewrite(graph: ir.Graph, node: ir.Node) -> bool:
    axes = array_of(node.inputs[1]) if len(node.inputs) > 1 else None
    if axes is None or not axes.size:
        return False
    old = node.outputs[0]
    name, source = old.name, node.inputs[0]
    node.attributes["keepdims"] = ir.AttrInt64("keepdims", 1)
    listed = add_initializer(graph, f"{name}_axes", axes.astype(np.int64))
    squeeze = ir.node("Squeeze", [old, listed], num_outputs=1, name=f"{node.name or name}_squeeze")
    graph.insert_after(node, squeeze)
    new = squeeze.outputs[0]
    new.shape, new.type = old.shape, old.type
    outputs = [new if value is old else value for value in graph.outputs]
    old.replace_all_uses_with(new, replace_graph_outputs=False)
    squeeze.replace_input_with(0, old)
    graph.outputs[:] = outputs
    old.name, new.name = f"{name}_kept", name
    rank = len(source.shape) if source is not None and source.shape is not None else None
    kept = {int(axis) % rank for axis in axes} if rank is not None else set()
    old.shape = None
    if rank is not None and source is not None and source.shape is not None:
        old.shape = ir.Shape([1 if index in kept else dim for index, dim in enumerate(source.shape)])
    return True
