"""TensorRT: the neutral graph, checked against what its parser rejects or silently misreads.

TensorRT reads uint8 with zero point 0 as int8 (wrong above 127), rejects any other zero point, int16, an int32 bias
under DequantizeLinear, and, in JetPack 6, opsets above 20.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgeopt.core.errors import GraphError
from edgeopt.core.events import Event
from edgeopt.graph.dialects.base import Rewrite
from edgeopt.graph.dialects.grids import make_symmetric
from edgeopt.graph.qdq import array_of, weighted_nodes

__all__ = ["DIALECT", "TensorRt"]

_OPSET_MAX = 20


class TensorRt:
    """Symmetric int8, zero points present and 0, float bias; all that is rewritten is what was quantized to uint8 for others."""

    name = "tensorrt"

    def rewrite(self, model: ir.Model) -> Rewrite:
        """Check every Q and DQ.

        Raises:
            GraphError: The graph holds a form that TensorRT rejects or misreads.
        """
        opset = model.opset_imports.get("", 0)
        if opset > _OPSET_MAX:
            raise GraphError(
                "TensorRT's parser reads opsets up to 20.", got=f"opset {opset}", fix="Export with opset 20."
            )
        coarser = make_symmetric(model)
        for node in model.graph:
            if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                _check(node)
        return Rewrite(same_points=coarser == 0, coarser=coarser, events=tuple(_left_in_float(model)))


def _check(node: ir.Node) -> None:
    zero = array_of(node.inputs[2]) if len(node.inputs) > 2 else None
    scale = array_of(node.inputs[1])
    weight = array_of(node.inputs[0])
    fault = None
    if zero is None or zero.dtype != np.int8:
        fault = f"zero point {'absent' if zero is None else zero.dtype}; it must be present as int8"
    elif bool(np.any(zero != 0)):
        fault = "a zero point other than 0"
    elif scale is None or not bool(np.all(scale > 0)):
        fault = "a scale that is not above zero"
    elif weight is not None and weight.dtype != np.int8:
        fault = f"a constant of {weight.dtype} (a bias must stay float)"
    elif weight is None and scale.size != 1:
        fault = "an activation with one scale per channel"
    if fault:
        raise GraphError(
            f"{node.name!r} has a form that TensorRT rejects or misreads.",
            got=fault,
            fix="Compile TensorRT's graph from the neutral one that export writes.",
        )


def _left_in_float(model: ir.Model) -> list[Event]:
    events = []
    for node, weight, dequantize in weighted_nodes(model.graph):
        if dequantize is None:
            continue
        scale = array_of(dequantize.inputs[1])
        axis = dequantize.attributes.get_int("axis", 1) % max(weight.ndim, 1)
        if node.op_type == "ConvTranspose":
            reason = "it has no int8 kernel for it"
        elif node.op_type == "Conv" and scale is not None and scale.size > 1 and axis != 0:
            reason = f"its weight's scales lie along axis {axis}, not 0"
        else:
            continue
        message = f"TensorRT runs this {node.op_type} in float: {reason}."
        events.append(Event(kind="fallback", stage="dialect", message=message, node=node.name))
    return events


DIALECT = TensorRt()
