"""The bias of a quantized Conv or Gemm, as int32 in the accumulator's own unit, zero points written out.

ONNX Runtime adds a float bias to an integer sum in no kernel. It would write such a bias as int32 itself, with two gaps:

- Where no QuantizeLinear follows a Gemm, as at a classifier's last layer, it unpacks the weight to float and runs a float
  Gemm. (MatMul and Add are no way around it: it fuses them back into a Gemm.)
- The DequantizeLinear that it adds has no zero point. Saving runtime optimizations for ARM it then appends one without
  counting it ("The sum of input arg count is not equal to size of input defs", ONNX Runtime 1.32), and no .ort file is
  written.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgeopt.graph.qdq import add_initializer, array_of

__all__ = ["QuantizeBias"]

_INT32_MAX = 2**31 - 1


class QuantizeBias(ir.passes.InPlacePass):
    """Conv(DQ(x), DQ(W), b) becomes Conv(DQ(x), DQ(W), DQ(b₃₂)): off by at most half of x's step times W's."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite every Conv and Gemm with int8 inputs and a float bias; one too large for int32 stays."""
        modified = False
        for node in list(model.graph):
            if node.op_type in ("Conv", "Gemm") and _is_candidate(node):
                modified = _rewrite(model.graph, node) or modified
        return ir.passes.PassResult(model, modified)


def _is_candidate(node: ir.Node) -> bool:
    plain = all(node.attributes.get_float(name, 1.0) == 1.0 for name in ("alpha", "beta"))
    producers = [value.producer() if value is not None else None for value in node.inputs[:2]]
    return plain and all(producer is not None and producer.op_type == "DequantizeLinear" for producer in producers)


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
