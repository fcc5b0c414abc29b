"""Flatten behind the batch as Reshape, which ONNX Runtime moves Q and DQ past."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgeopt.graph.qdq import add_initializer

__all__ = ["FlattenAsReshape"]


class FlattenAsReshape(ir.passes.InPlacePass):
    """Flatten(x), axis 1, becomes Reshape(x, [0, -1]): the same for every tensor with at least one element per sample."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite every Flatten whose axis is 1."""
        modified = False
        for node in list(model.graph):
            if (
                node.op_type != "Flatten"
                or node.domain not in ("", "ai.onnx")
                or node.attributes.get_int("axis", 1) != 1
            ):
                continue
            shape = add_initializer(model.graph, "keep_batch", np.array([0, -1], np.int64))
            made = ir.node("Reshape", [node.inputs[0], shape], num_outputs=1, name=node.name)
            old = node.outputs[0]
            made.outputs[0].shape, made.outputs[0].type = old.shape, old.type
            ir.convenience.replace_nodes_and_values(model.graph, node, [node], [made], [old], [made.outputs[0]])
            modified = True
        return ir.passes.PassResult(model, modified)
