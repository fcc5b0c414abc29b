"""What multiplies in float beside int8 layers multiplies in bfloat16: recurrent cells, products of two activations.

No CPU runtime has integer kernels for them, or none that pays, and in a net of int8 layers they take most of the time that is
left. bfloat16 keeps float32's range, so nothing overflows; its eight bits of precision are what the int8 layers have.
"""

from __future__ import annotations

import onnx_ir as ir

from edgeopt.graph.float_range import BFLOAT16
from edgeopt.graph.half import narrow_nodes
from edgeopt.graph.passes.float_readers import RECURRENT, is_dequantized
from edgeopt.graph.qdq import weighted_nodes

__all__ = ["Bfloat16Products"]

_BETWEEN = frozenset({"Softmax", "Add", "Mul", "Div", "Where", "Transpose", "Reshape"})


class Bfloat16Products(ir.passes.InPlacePass):
    """GRU(x, W) becomes Cast(GRU(Cast(x), W in bfloat16)); of attention both products, and what lies between them."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Convert every such node of the main graph."""
        cells = {node for node in model.graph if node.op_type in RECURRENT and node.domain in ("", "ai.onnx")}
        products = _products(model.graph)
        return ir.passes.PassResult(model, narrow_nodes(model, cells | products | _between(products), BFLOAT16))


def _products(graph: ir.Graph) -> set[ir.Node]:
    """Every MatMul without a constant operand that is not int8."""
    weighted = {node for node, _, _ in weighted_nodes(graph)}
    products = (node for node in graph if node.op_type == "MatMul" and node.domain in ("", "ai.onnx"))
    return {node for node in products if not all(map(is_dequantized, node.inputs))} - weighted


def _between(products: set[ir.Node]) -> set[ir.Node]:
    """What leads from one product to another and nowhere else: scaling, mask, softmax."""
    reached: set[ir.Node] = set()
    pending = list(products)
    while pending:
        readers = [reader for value in pending.pop().outputs for reader in value.consumers()]
        new = {node for node in readers if node.op_type in _BETWEEN} - reached
        reached |= new
        pending += new
    while stray := {node for node in reached if not _leads_to(node, reached | products)}:
        reached -= stray
    return reached


def _leads_to(node: ir.Node, wanted: set[ir.Node]) -> bool:
    return all(
        not value.is_graph_output() and value.consumers() and wanted.issuperset(value.consumers())
        for value in node.outputs
    )
