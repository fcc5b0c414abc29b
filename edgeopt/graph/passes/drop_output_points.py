"""Take away the grid between a convolution and an activation function that the runtime computes inside it, or float arithmetic.

OpenVINO writes a convolution's sums as float and applies sigmoid, swish, hard swish, GELU, PReLU and their like in the
same kernel. A QuantizeLinear in between, which ONNX Runtime needs to keep the convolution in int8, splits the two: each
activation becomes a pass of its own over the tensor, 622 of 1,442 µs in a net of squeeze-and-excitation blocks with
SiLU. Without it the activation sees the sums unrounded.

A normalization behind the convolution, a recurrent cell, or an addition of a float tensor, is no int8 operation at all: there
the grid is two more operations, also behind a ReLU, and it rounds what the rest of a transformer is added to. In a ViT the one
behind the patches cost 1.8 dB.
"""

from __future__ import annotations

import onnx_ir as ir

from edgeopt.graph.passes.float_readers import feeds_float
from edgeopt.graph.qdq import activation_points

__all__ = ["DropOutputPoints"]

_ACTIVATIONS = frozenset(
    {"Sigmoid", "HardSigmoid", "HardSwish", "Gelu", "Erf", "PRelu", "LeakyRelu", "Elu", "Selu", "Celu"}
    | {"Softplus", "Mish", "Tanh", "Mul", "Div"}  # the last two: x·σ(x), and GELU before opset 20
)
_LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm"})
_CLIPS = frozenset({"Relu", "Clip"})


class DropOutputPoints(ir.passes.InPlacePass):
    """Activation(DQ(Q(Conv(x)))) becomes Activation(Conv(x)), where nothing but float operations reads the quantized tensor."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Remove every such pair."""
        modified = False
        for point in activation_points(model.graph):
            layer = last = point.tensor.producer()
            if last is not None and last.op_type in _CLIPS and last.inputs[0] is not None:
                layer = last.inputs[0].producer()
            readers = [reader for node in point.dequantize for reader in node.outputs[0].consumers()]
            is_output = any(node.outputs[0].is_graph_output() for node in point.dequantize)
            if layer is None or layer.op_type not in _LAYERS or is_output or not readers:
                continue
            absorbed = layer is last and all(reader.op_type in _ACTIVATIONS for reader in readers)
            if not absorbed and not feeds_float(point):
                continue
            for node in point.dequantize:
                node.outputs[0].replace_all_uses_with(point.tensor)
            model.graph.remove([*point.dequantize, point.quantize], safe=True)
            modified = True
        return ir.passes.PassResult(model, modified)
