"""OpenVINO on CPUs: uint8 activations, a zero point of its own for every weight, no grid that splits a kernel."""

from __future__ import annotations

import onnx_ir as ir

from edgeopt.graph.dialects.base import Rewrite
from edgeopt.graph.dialects.grids import left_alone, regrid
from edgeopt.graph.passes.base import run_passes
from edgeopt.graph.passes.block_weights import BlockWeights
from edgeopt.graph.passes.drop_output_points import DropOutputPoints
from edgeopt.graph.passes.hoist_quantize import HoistQuantize
from edgeopt.graph.passes.own_zero_points import OwnZeroPoints
from edgeopt.graph.passes.pack_int4 import PackInt4

__all__ = ["DIALECT", "OpenVino"]


class OpenVino:
    """uint8 activations on the full 8 bits of their range, Q/DQ in front of what only moves or selects values.

    OpenVINO moves Q/DQ itself, but not past a maximum pool: with the Q behind it the pool runs in float and a conversion
    follows.
    """

    name = "openvino"

    def rewrite(self, model: ir.Model) -> Rewrite:
        """Write every activation as uint8, without the grids that part a convolution from its activation function."""
        dropped = run_passes(model, [DropOutputPoints()])
        same = regrid(model, "uint8") and not dropped
        left = left_alone(model)  # before pools come to read integers
        run_passes(model, [HoistQuantize(), OwnZeroPoints(), BlockWeights(), PackInt4()])
        return Rewrite(same_points=same, events=tuple(left))


DIALECT = OpenVino()
