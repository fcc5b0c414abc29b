"""Leave out of a small graph what a runtime infers or nobody reads: types of inner values, long names of constants and grids.

In a ResNet-20 with weights of 4 bits they are a sixth of the file. What a runtime's report names (layers, additions,
pools), the inputs and the outputs keep their names.
"""

from __future__ import annotations

import onnx_ir as ir

from edgeopt.graph.qdq import RANGE_KEY

__all__ = ["Slim"]

_GRIDS = frozenset({"QuantizeLinear", "DequantizeLinear", "Cast"})


class Slim(ir.passes.InPlacePass):
    """Number constants and Q/DQ; forget types and shapes of inner values, and the ranges that calibration saw."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Rewrite the main graph; a model with subgraphs is left alone, as those read names from outside."""
        graph = model.graph
        if sum(1 for _ in model.graphs()) > 1:
            return ir.passes.PassResult(model, modified=False)
        taken = {value.name for value in (*graph.inputs, *graph.outputs)}
        taken |= {value.name for node in graph if node.op_type not in _GRIDS for value in node.outputs}
        free = (name for number in range(1 << 31) if (name := _short(number)) not in taken)
        for value in list(graph.initializers.values()):
            if not value.is_graph_output() and not value.is_graph_input():
                value.name = next(free)
                value.type = value.shape = None  # the tensor has both
        for node in graph:
            node.metadata_props.pop(RANGE_KEY, None)
            for value in node.outputs:
                if value.is_graph_output():
                    continue
                value.type = value.shape = None
                if node.op_type in _GRIDS:
                    value.name = next(free)
        return ir.passes.PassResult(model, modified=True)


def _short(number: int) -> str:
    """A different text for each number: letters and digits, as few as it takes."""
    digits = "abcdefghijklmnopqrstuvwxyz0123456789"
    text = digits[number % 26]  # no name begins with a digit
    number //= 26
    while number:
        number, last = divmod(number - 1, len(digits))
        text += digits[last]
    return text
