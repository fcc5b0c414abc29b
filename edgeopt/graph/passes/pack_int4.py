"""Weights of 4 bits, stored in 4 bits and read as the int8 that they were.

Cast(int4 → int8) → DequantizeLinear, and not DequantizeLinear of int4: with the cast, ONNX Runtime 1.32 folds the weight
to int8 when it opens the file and fuses QLinearConv and QGemm as for an int8 graph (4 of 4 convolutions, outputs equal in
every bit), and OpenVINO 2026.4 runs every layer on u8 with i4 in its IR. Dequantized straight from int4, both run the
convolutions in float (0 of 4 fused; f32 throughout).
"""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir

from edgeopt.core.errors import GraphError
from edgeopt.graph.passes.opset import raise_opset
from edgeopt.graph.passes.slim import Slim
from edgeopt.graph.qdq import BITS_KEY, array_of, new_initializer, weighted_nodes

__all__ = ["PackInt4", "demand_fit", "is_four_bits"]

_INT4 = (-8, 7)


class PackInt4(ir.passes.InPlacePass):
    """Pack the weights that are marked as 4 bits; the graph is raised to opset 21, the first with int4."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Pack each once, whoever reads it.

        Raises:
            GraphError: A weight that is marked does not fit, or the graph cannot be raised to opset 21.
        """
        packed: dict[int, ir.Value] = {}
        for node, _, dequantize in list(weighted_nodes(model.graph)):
            if dequantize is None or not is_four_bits(node):
                continue
            source = dequantize.inputs[0]
            weight = array_of(source)
            if source is None or weight is None or weight.dtype != np.int8:
                continue  # packed already, for another reader
            demand_fit(node, weight)
            if id(source) not in packed:
                packed[id(source)] = _pack(model.graph, dequantize, source, weight)
            dequantize.replace_input_with(0, packed[id(source)])
        if packed:
            raise_opset(model, 21)
            Slim()(model)
        return ir.passes.PassResult(model, modified=bool(packed))


def is_four_bits(node: ir.Node) -> bool:
    """Whether the weight of ``node`` is marked as one of 4 bits."""
    return node.metadata_props.get(BITS_KEY) == "4"


def demand_fit(node: ir.Node, weight: np.ndarray) -> None:
    """Refuse a weight with integers beyond 4 bits.

    Raises:
        GraphError: It has some.
    """
    low, high = int(weight.min(initial=0)), int(weight.max(initial=0))
    if low < _INT4[0] or high > _INT4[1]:
        raise GraphError(
            f"The weight of {node.name!r} is marked as one of 4 bits and does not fit into them.",
            got=f"integers from {low} to {high}",
            fix="Please report this, with the recipe.",
        )


def _pack(graph: ir.Graph, dequantize: ir.Node, source: ir.Value, weight: np.ndarray) -> ir.Value:
    small = new_initializer(graph, f"{source.name}_int4", weight.astype(ml_dtypes.int4))
    cast = ir.node("Cast", [small], {"to": ir.DataType.INT8.value}, num_outputs=1, name=f"{source.name}_unpack")
    new = cast.outputs[0]
    new.name, new.shape, new.type = f"{source.name}_unpacked", ir.Shape(weight.shape), ir.TensorType(ir.DataType.INT8)
    graph.insert_before(dequantize, cast)
    return new
