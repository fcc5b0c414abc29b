"""The bias of a quantized Gemm whose output stays float, as int32 in the accumulator's own unit.

ONNX Runtime does this itself where a QuantizeLinear follows the Gemm. Where none does, as at a classifier's last layer, it
unpacks the weight to float and runs a float Gemm, unless the bias is int32 already. (MatMul and Add are no way around it:
it fuses them back into a Gemm.)
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgeopt.graph.qdq import add_initializer, array_of

__all__ = ["QuantizeBias"]

_INT32_MAX = 2**31 - 1


class QuantizeBias(ir.passes.InPlacePass):
    """Gemm(DQ(x), DQ(W), b) becomes Gemm(DQ(x), DQ(W), DQ(b₃₂)): off by at most half a unit of x's times W's step."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite every Gemm with int8 inputs, a float bias and a float output."""
        modified = False
        for node in list(model.graph):
            if node.op_type == "Gemm" and _is_candidate(node):
                modified = _rewrite(model.graph, node) or modified
        return ir.passes.PassResult(model, modified)


def _is_candidate(node: ir.Node) -> bool:
    plain = all(node.attributes.get_float(name, 1.0) == 1.0 for name in ("alpha", "beta"))
    producers = [value.producer() if value is not None else None for value in node.inputs[:2]]
    quantized = all(producer is not None and producer.op_type == "DequantizeLinear" for producer in producers)
    readers = node.outputs[0].consumers()
    if len(readers) == 1 and readers[0].op_type in ("Relu", "Clip"):
        readers = readers[0].outputs[0].consumers()
    return plain and quantized and not any(reader.op_type == "QuantizeLinear" for reader in readers)


def _rewrite(graph: ir.Graph, node: ir.Node) -> bool:
    bias_value = node.inputs[2] if len(node.inputs) > 2 else None
    bias = array_of(bias_value)
    step = _step(node.inputs[0]), _step(node.inputs[1])
    if bias_value is None or bias is None or bias.ndim != 1 or step[0] is None or step[1] is None or step[0].size != 1:
        return False
    scale = np.broadcast_to(step[0].reshape(()) * step[1].reshape(-1), bias.shape).astype(np.float32)
    units = np.rint(bias.astype(np.float64) / scale)
    if not bool(np.all(np.abs(units) < _INT32_MAX)):
        return False
    name = node.outputs[0].name
    data = add_initializer(graph, f"{name}_bias", units.astype(np.int32))
    scales = add_initializer(graph, f"{name}_bias_scale", scale)
    zeros = add_initializer(graph, f"{name}_bias_zero_point", np.zeros(bias.shape, np.int32))
    dequantize = ir.node("DequantizeLinear", [data, scales, zeros], {"axis": 0}, num_outputs=1, name=f"{name}_bias_dq")
    dequantize.outputs[0].name = f"{name}_bias_dq"
    graph.insert_before(node, dequantize)
    node.replace_input_with(2, dequantize.outputs[0])
    return True


def _step(value: ir.Value | None) -> np.ndarray | None:
    producer = value.producer() if value is not None else None
    return None if producer is None else array_of(producer.inputs[1])
