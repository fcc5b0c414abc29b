"""XNNPACK, for ExecuTorch and LiteRT: int8 activations on the full 8 bits of their range, Q on both sides of every move.

Its int8 kernels take any zero point, write int8, and are chosen where an operation stands between a
DequantizeLinear and a QuantizeLinear (executorch/backends/xnnpack/partition/config, LiteRT's 8-bit quantization
specification). So reshapes, pools and concatenations get a pair of their own in front, and means keep their axes. Its average pool
has no int8 form that counts the padding: quantized ones are written as depthwise convolutions, as for ONNX Runtime.
"""

from __future__ import annotations

import onnx_ir as ir

from edgeopt.core.events import Event
from edgeopt.graph.dialects.base import Rewrite
from edgeopt.graph.dialects.grids import left_alone, regrid
from edgeopt.graph.passes.average_as_conv import AverageAsConv
from edgeopt.graph.passes.base import run_passes
from edgeopt.graph.passes.check_weights import CheckWeights
from edgeopt.graph.passes.hoist_quantize import HoistQuantize
from edgeopt.graph.passes.keep_dims import KeepDims

__all__ = ["DIALECT", "Xnnpack"]


class Xnnpack:
    """The grids of ``ort-arm``, biases in float: XNNPACK quantizes them itself, in int32 at the product of the scales."""

    name = "xnnpack"

    def rewrite(self, model: ir.Model) -> Rewrite:
        """Write every activation as int8 with its own zero point, then put Q/DQ around what only moves values.

        Raises:
            GraphError: A weight holds −128.
        """
        run_passes(model, [CheckWeights(), KeepDims()])
        same = regrid(model, "int8")
        left: list[Event] = left_alone(model)
        run_passes(model, [HoistQuantize(), AverageAsConv()])
        return Rewrite(same_points=same, events=tuple(left))


DIALECT = Xnnpack()
