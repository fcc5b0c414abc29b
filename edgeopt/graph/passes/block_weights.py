"""Weights with one scale per group as ONNX writes them from opset 21 on: DequantizeLinear with ``block_size``.

For OpenVINO: 2026.4 keeps such a weight as i4 or i8 in its IR and multiplies by it packed (FullyConnected on i4 or i8)
where it is stored [N, K] with blocks along axis 1; stored [K, N] it is transposed when the model is loaded. (One linear
layer and a ViT, 4 and 8 bits, groups of 16, 32 and 128; outputs within 4e-6 of NumPy's float64, given that
DYNAMIC_QUANTIZATION_GROUP_SIZE is 0: else the input is quantized too, and they are 4e-2 off.)
"""

from __future__ import annotations

import ml_dtypes
import onnx_ir as ir

from edgeopt.graph.passes.group_rows import GroupedWeight, grouped_weights
from edgeopt.graph.passes.opset import raise_opset
from edgeopt.graph.qdq import add_initializer

__all__ = ["BlockWeights"]


class BlockWeights(ir.passes.InPlacePass):
    """Rewrite every grouped weight; those of 4 bits become int4. Values do not change."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite; the graph is raised to opset 21, the first with blocks and int4.

        Raises:
            GraphError: A weight marked as 4 bits does not fit, or the graph cannot be raised to opset 21.
        """
        found = list(grouped_weights(model.graph))
        for weight in found:
            _rewrite(model.graph, weight)
        if found:
            raise_opset(model, 21)
        return ir.passes.PassResult(model, modified=bool(found))


def _rewrite(graph: ir.Graph, weight: GroupedWeight) -> None:
    node, values, name = weight.node, weight.values, weight.node.outputs[0].name
    data = add_initializer(
        graph, f"{weight.name}_blocks", values.astype(ml_dtypes.int4) if weight.bits == 4 else values
    )
    scales = add_initializer(graph, f"{weight.name}_steps", weight.scales)
    blocked = ir.node("DequantizeLinear", [data, scales], {"axis": 1, "block_size": weight.group}, num_outputs=1)
    value = _insert(graph, node, blocked, f"{name}_weight", values.shape)
    if node.op_type == "Gemm":
        node.attributes["transB"] = ir.AttrInt64("transB", 1)
    else:
        turned = ir.node("Transpose", [value], {"perm": [1, 0]}, num_outputs=1)
        value = _insert(graph, node, turned, f"{name}_weight_t", values.shape[::-1])
    node.replace_input_with(1, value)


def _insert(graph: ir.Graph, before: ir.Node, made: ir.Node, name: str, shape: tuple[int, ...]) -> ir.Value:
    value = made.outputs[0]
    value.name, value.type, value.shape = name, ir.TensorType(ir.DataType.FLOAT), ir.Shape(shape)
    graph.insert_before(before, made)
    return value
