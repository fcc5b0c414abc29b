"""A bias that is stored as int32 and dequantized, as the float constant that it stands for."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgeopt.graph.qdq import add_initializer, array_of

__all__ = ["FloatBias"]


class FloatBias(ir.passes.InPlacePass):
    """Conv(x, W, DQ(b₃₂)) becomes Conv(x, W, b): the same numbers, computed once."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite the third input of every Conv, ConvTranspose and Gemm; the DequantizeLinear goes where none else reads it."""
        modified = False
        for node in list(model.graph):
            if node.op_type not in ("Conv", "ConvTranspose", "Gemm") or len(node.inputs) < 3:
                continue
            value = node.inputs[2]
            producer = value.producer() if value is not None else None
            bias = _bias(producer)
            if producer is None or bias is None:
                continue
            node.replace_input_with(2, add_initializer(model.graph, f"{producer.outputs[0].name}_float", bias))
            if not producer.outputs[0].uses() and not producer.outputs[0].is_graph_output():
                model.graph.remove(producer, safe=True)
            modified = True
        return ir.passes.PassResult(model, modified)


def _bias(producer: ir.Node | None) -> np.ndarray | None:
    if producer is None or producer.op_type != "DequantizeLinear":
        return None
    stored, scale = array_of(producer.inputs[0]), array_of(producer.inputs[1])
    zero = array_of(producer.inputs[2]) if len(producer.inputs) > 2 else None
    if stored is None or scale is None or stored.dtype != np.int32 or stored.ndim != 1:
        return None
    shifted = stored if zero is None else stored - zero
    return np.asarray(shifted.astype(scale.dtype) * scale.reshape(-1))
