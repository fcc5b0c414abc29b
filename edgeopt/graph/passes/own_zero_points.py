"""One zero point per dequantized weight.

The exporter gives equal constants one initializer. OpenVINO 2026.4 then runs a layer in float where a convolution and a
linear layer share theirs; and ONNX Runtime is slow where the zero point is left out. So: present, and one each.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgeopt.core.errors import GraphError
from edgeopt.graph.qdq import array_of, new_initializer, weight_nodes

__all__ = ["OwnZeroPoints"]


class OwnZeroPoints(ir.passes.InPlacePass):
    """Give every DequantizeLinear of a weight a zero-point initializer that no other node reads."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Add or copy zero points; values do not change."""
        modified = False
        for node in list(weight_nodes(model.graph)):
            current = node.inputs[2] if len(node.inputs) > 2 else None
            if current is not None and len(current.uses()) == 1 and current.is_initializer():
                continue
            self._own(model.graph, node)
            modified = True
        return ir.passes.PassResult(model, modified)

    def ensures(self, model: ir.Model) -> None:
        """No two weights share a zero point."""
        seen: set[str] = set()
        for node in weight_nodes(model.graph):
            name = node.inputs[2].name if len(node.inputs) > 2 and node.inputs[2] is not None else None
            if name is None or name in seen:
                raise GraphError("A weight has no zero point of its own.", got=node.name)
            seen.add(name)

    @staticmethod
    def _own(graph: ir.Graph, node: ir.Node) -> None:
        weight, scale = array_of(node.inputs[0]), array_of(node.inputs[1])
        zero = array_of(node.inputs[2]) if len(node.inputs) > 2 else None
        if weight is None or scale is None:
            return
        if zero is None:
            zero = np.zeros(scale.shape, weight.dtype)
        base = f"{node.outputs[0].name}_zero_point"
        name, count = base, 0
        while name in graph.initializers:
            count += 1
            name = f"{base}_{count}"
        value = new_initializer(graph, name, zero)
        if len(node.inputs) < 3:
            node.resize_inputs(3)
        node.replace_input_with(2, value)
