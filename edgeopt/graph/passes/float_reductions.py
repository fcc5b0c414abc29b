"""Take away the grid in front of a reduction over one of three dimensions that OpenVINO's CPU kernel computes wrongly.

From int8 or uint8 to float, over a tensor of three dimensions and more than one sample, the kernel of OpenVINO 2026.4.1
reads beyond its accumulators: means of 10^30, other ones in each process (AVX-512, whichever axis; one sample, two or four
dimensions, and a result that is quantized again are right). A 1-D net with a float layer behind its global pool is such a
graph. Float sums are as fast there, since the convolution in front writes them as it writes integers.
"""

from __future__ import annotations

import onnx_ir as ir

from edgeopt.graph.qdq import Point, activation_points

__all__ = ["FloatReductions"]


class FloatReductions(ir.passes.InPlacePass):
    """Mean(DQ(Q(x))) becomes Mean(x), where x has three dimensions and the mean is not quantized at once."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Let every such reduction read what was to be quantized; the grid stays for other readers."""
        modified = False
        for point in activation_points(model.graph):
            if _dimensions(point) not in (3, None):
                continue
            for node in point.dequantize:
                value = node.outputs[0]
                for reader in [r for r in value.consumers() if _is_float_reduction(r)]:
                    reader.replace_input_with(0, point.tensor)
                    modified = True
                if not value.consumers() and not value.is_graph_output():
                    model.graph.remove(node, safe=True)
            if not point.quantize.outputs[0].consumers():
                model.graph.remove(point.quantize, safe=True)
        return ir.passes.PassResult(model, modified)


def _dimensions(point: Point) -> int | None:
    """How many dimensions the tensor has, None where no value on its way records it."""
    values = (point.tensor, point.quantize.outputs[0], *(node.outputs[0] for node in point.dequantize))
    return next((len(value.shape) for value in values if value.shape is not None), None)


def _is_float_reduction(node: ir.Node) -> bool:
    """Whether a node is a reduction whose result something reads that is no QuantizeLinear."""
    if not node.op_type.startswith(("Reduce", "GlobalAveragePool", "GlobalMaxPool")):
        return False
    value = node.outputs[0]
    return value.is_graph_output() or any(reader.op_type != "QuantizeLinear" for reader in value.consumers())
