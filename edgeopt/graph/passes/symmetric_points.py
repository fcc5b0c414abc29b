"""uint8 activations around 128 as int8 around 0: the same points, in the only form that TensorRT takes."""

from __future__ import annotations

import onnx_ir as ir

from edgeopt.graph.qdq import activation_points, set_grid

__all__ = ["SymmetricPoints"]


class SymmetricPoints(ir.passes.InPlacePass):
    """Write every per-tensor uint8 point with zero point 128 as int8 with zero point 0.

    Other zero points have no such form: their range is not symmetric, and widening it would make the grid coarser.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Re-encode; values do not change."""
        modified = False
        for point in activation_points(model.graph):
            if point.dtype == "uint8" and point.zero_point == 128:
                set_grid(model.graph, point, point.scale, 0, "int8")
                modified = True
        return ir.passes.PassResult(model, modified)
