"""Weights with one scale per group as ONNX Runtime's own MatMulNBits.

Its float kernels multiply by packed 4- and 8-bit weights. ONNX Runtime 1.32 makes that node itself of DequantizeLinear
with blocks → MatMul or Gemm, but only where the weight is stored [K, N], and not where a Relu follows: Gemm and Relu are
fused before, and the weight is dequantized in every inference (1 of 2 layers of an MLP). So it is written out.

``accuracy_level`` 1 says: compute in float32. ONNX Runtime's choice for a node that it makes itself is 4, which quantizes
the input to int8 on the fly and was 4e-2 off NumPy's float64 where 1 is 4e-6 (one linear layer of 256 inputs).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgeopt.graph.passes.group_rows import GroupedWeight, grouped_weights
from edgeopt.graph.qdq import add_initializer

__all__ = ["MatMulNBits", "pack_blocks"]

_DOMAIN = "com.microsoft"
_FLOAT32 = 1  # accuracy_level


class MatMulNBits(ir.passes.InPlacePass):
    """Gemm or MatMul by a grouped weight becomes com.microsoft.MatMulNBits; values do not change."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite every such layer.

        Raises:
            GraphError: A weight marked as 4 bits does not fit.
        """
        found = list(grouped_weights(model.graph))
        for weight in found:
            _rewrite(model.graph, weight)
        if found:
            model.opset_imports[_DOMAIN] = 1
        return ir.passes.PassResult(model, modified=bool(found))


def pack_blocks(values: np.ndarray, bits: int, group: int) -> np.ndarray:
    """Signed integers [N, K] as MatMulNBits stores them: uint8 [N, K / group, group · bits / 8].

    Its zero point, where none is given, is half of the range: 8 or 128. Of two 4-bit values in a byte the first is in
    the low half.
    """
    blocks = (values.astype(np.int16) + (1 << (bits - 1))).astype(np.uint8).reshape(len(values), -1, group)
    return blocks if bits == 8 else blocks[:, :, 0::2] | (blocks[:, :, 1::2] << 4)


def _rewrite(graph: ir.Graph, weight: GroupedWeight) -> None:
    node, (rows, columns) = weight.node, weight.values.shape
    packed = pack_blocks(weight.values, weight.bits, weight.group)
    data = add_initializer(graph, f"{weight.name}_packed", packed)
    scales = add_initializer(graph, f"{weight.name}_steps", weight.scales)
    bias = [None, None, node.inputs[2]] if node.op_type == "Gemm" and len(node.inputs) > 2 else []
    made = ir.node(
        "MatMulNBits",
        [node.inputs[0], data, scales, *bias],
        {"K": columns, "N": rows, "bits": weight.bits, "block_size": weight.group, "accuracy_level": _FLOAT32},
        domain=_DOMAIN,
        num_outputs=1,
        name=node.name,
    )
    old, new = node.outputs[0], made.outputs[0]
    name = old.name
    made.metadata_props.update(node.metadata_props)
    new.shape, new.type = old.shape, old.type
    graph.insert_before(node, made)
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    new.name = name
