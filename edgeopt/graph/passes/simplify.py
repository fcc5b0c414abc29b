"""Fold constants and drop what changes nothing, with onnxscript's optimizer.

It leaves QuantizeLinear and DequantizeLinear alone and keeps the metadata of nodes; onnxslim folds as well but drops the
metadata, and with it the calibrated ranges.
"""

from __future__ import annotations

import collections

import onnx_ir as ir
import onnxscript.optimizer

from edgeopt.core.errors import GraphError
from edgeopt.graph.qdq import array_of, weight_nodes

__all__ = ["Simplify"]


class Simplify(ir.passes.InPlacePass):
    """Constant folding; Q/DQ nodes and quantized weights stay as they are."""

    def __init__(self) -> None:
        super().__init__()
        self._before: collections.Counter[str] = collections.Counter()

    def requires(self, model: ir.Model) -> None:
        """Remember what must survive."""
        self._before = _quantization(model)

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Run the optimizer."""
        before = [node.op_type for node in model.graph]
        onnxscript.optimizer.optimize_ir(model)
        return ir.passes.PassResult(model, modified=before != [node.op_type for node in model.graph])

    def ensures(self, model: ir.Model) -> None:
        """No quantized weight became float."""
        lost = self._before - _quantization(model)
        if lost:
            raise GraphError("Simplifying the graph lost quantized weights.", got=", ".join(sorted(lost)))


def _quantization(model: ir.Model) -> collections.Counter[str]:
    counts: collections.Counter[str] = collections.Counter()
    for node in weight_nodes(model.graph):
        weight = array_of(node.inputs[0])
        counts[f"{node.outputs[0].name}:{None if weight is None else weight.shape}"] += 1
    return counts
