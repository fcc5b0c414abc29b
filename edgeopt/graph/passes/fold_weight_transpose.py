"""Transpose(DequantizeLinear(W)) becomes DequantizeLinear(Wᵀ).

A runtime looks for its int8 weight right behind the matrix product; a Transpose in between hides it.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgeopt.graph.qdq import add_initializer, array_of, weight_nodes

__all__ = ["FoldWeightTranspose"]


class FoldWeightTranspose(ir.passes.InPlacePass):
    """Store quantized weights the way they are read; the dequantized values do not change."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fold every transpose whose input is a dequantized constant."""
        graph, modified = model.graph, False
        for node in list(weight_nodes(graph)):
            for reader in list(node.outputs[0].consumers()):
                if reader.op_type == "Transpose" and not reader.outputs[0].is_graph_output():
                    _fold(graph, node, reader)
                    modified = True
        return ir.passes.PassResult(model, modified)


def _fold(graph: ir.Graph, dequantize: ir.Node, transpose: ir.Node) -> None:
    weight = array_of(dequantize.inputs[0])
    if weight is None or dequantize.inputs[0] is None:
        return
    perm = list(transpose.attributes.get_ints("perm", list(reversed(range(weight.ndim)))))
    axis = dequantize.attributes.get_int("axis", 1) % max(weight.ndim, 1)
    data = add_initializer(
        graph, f"{dequantize.inputs[0].name}_transposed", np.ascontiguousarray(weight.transpose(perm))
    )
    scale = array_of(dequantize.inputs[1])
    # a scale for the whole tensor has no axis to follow
    attributes = {"axis": perm.index(axis)} if scale is not None and scale.ndim else {}
    folded = ir.node(
        "DequantizeLinear",
        inputs=[data, *dequantize.inputs[1:]],
        attributes=attributes,
        num_outputs=1,
        name=f"{dequantize.name}_transposed",
    )
    old, new = transpose.outputs[0], folded.outputs[0]
    new.name, new.shape, new.type = old.name, old.shape, old.type
    graph.insert_before(transpose, folded)
    old.replace_all_uses_with(new)
    graph.remove(transpose, safe=True)
    if not dequantize.outputs[0].consumers() and not dequantize.outputs[0].is_graph_output():
        graph.remove(dequantize, safe=True)
