"""Int8 weights without -128: it becomes -127, the other end of a symmetric grid."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgeopt.graph.qdq import add_initializer, array_of, weight_nodes

__all__ = ["ClampWeights"]


class ClampWeights(ir.passes.InPlacePass):
    """Each -128 moves by one step. Whether the outputs move is for the caller to see: nothing else changes."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Clamp every int8 weight that is dequantized."""
        modified = False
        for node in list(weight_nodes(model.graph)):
            weight = array_of(node.inputs[0])
            if weight is None or weight.dtype != np.int8 or not bool((weight == -128).any()):
                continue
            name = node.inputs[0].name if node.inputs[0] is not None else None
            clamped = np.maximum(weight, np.int8(-127))
            node.replace_input_with(0, add_initializer(model.graph, f"{name}_clamped", clamped))
            modified = True
        return ir.passes.PassResult(model, modified)
