"""ONNX Runtime on ARM: int8 activations whose grid starts at −128.

ARM's kernels multiply int8 by int8. Relu folds into Q only where Q's zero point is the smallest value, −128; at zero
point 0 about half of a ResNet's convolutions stay in float.
"""

from __future__ import annotations

import onnx_ir as ir

from edgeopt.graph.dialects.base import Rewrite
from edgeopt.graph.dialects.grids import left_alone, regrid, unquantized_outputs
from edgeopt.graph.passes.base import run_passes
from edgeopt.graph.passes.check_weights import CheckWeights
from edgeopt.graph.passes.fold_pad import FoldPad
from edgeopt.graph.passes.hoist_quantize import HoistQuantize
from edgeopt.graph.passes.matmul_nbits import MatMulNBits
from edgeopt.graph.passes.own_zero_points import OwnZeroPoints
from edgeopt.graph.passes.pack_int4 import PackInt4
from edgeopt.graph.passes.quantize_bias import QuantizeBias

__all__ = ["DIALECT", "OrtArm"]


class OrtArm:
    """The grids of ``ort-x86``, moved from uint8 to int8."""

    name = "ort-arm"

    def rewrite(self, model: ir.Model) -> Rewrite:
        """Write every activation as int8 with its own zero point, then move Q/DQ to where ONNX Runtime looks for them.

        Raises:
            GraphError: A weight holds −128, which overflows on Cortex-A53.
        """
        run_passes(model, [CheckWeights(), FoldPad()])
        same = regrid(model, "int8")
        same = not run_passes(model, [QuantizeBias()]) and same
        left = left_alone(model)  # before Pad comes to read integers
        run_passes(model, [HoistQuantize(), OwnZeroPoints(), MatMulNBits(), PackInt4()])
        return Rewrite(same_points=same, events=(*left, *unquantized_outputs(model, "ONNX Runtime")))


DIALECT = OrtArm()
