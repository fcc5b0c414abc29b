"""Int8 weights hold no −128.

On ARM Cortex-A53 ONNX Runtime multiplies int8 by int8 into int16 pairs: (−128)·(−128)·2 overflows (onnxruntime#31573).
Symmetric quantization never needs −128, so a graph that has it was made by something else.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgeopt.core.errors import GraphError
from edgeopt.graph.qdq import array_of, weight_nodes

__all__ = ["CheckWeights"]


class CheckWeights(ir.passes.InPlacePass):
    """Changes nothing; refuses int8 weights outside [−127, 127]."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Look at every quantized weight."""
        for node in weight_nodes(model.graph):
            weight = array_of(node.inputs[0])
            if weight is not None and weight.dtype == np.int8 and bool((weight == -128).any()):
                raise GraphError(
                    f"The weight of {node.name!r} holds −128, which overflows on some ARM cores.",
                    got=f"{int((weight == -128).sum())} of {weight.size} elements",
                    fix="Quantize weights to [-127, 127].",
                )
        return ir.passes.PassResult(model, modified=False)
