"""ONNX Runtime on x86 with VNNI: uint8 activations.

On x86 ONNX Runtime leaves int8 activations in float (it fuses them on ARM only) and folds Relu into Q only at zero
point 0 of uint8. The kernels multiply uint8 by int8.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from edgeopt.graph.dialects.base import Rewrite
from edgeopt.graph.dialects.grids import float_on_purpose, left_alone, regrid, unquantized_outputs
from edgeopt.graph.passes.average_as_conv import AverageAsConv
from edgeopt.graph.passes.base import run_passes
from edgeopt.graph.passes.float_stem import FloatStem
from edgeopt.graph.passes.fold_pad import FoldPad
from edgeopt.graph.passes.hoist_quantize import HoistQuantize
from edgeopt.graph.passes.integer_products import IntegerProducts
from edgeopt.graph.passes.matmul_nbits import MatMulNBits
from edgeopt.graph.passes.own_zero_points import OwnZeroPoints
from edgeopt.graph.passes.pack_int4 import PackInt4
from edgeopt.graph.passes.quantize_bias import QuantizeBias
from edgeopt.graph.passes.widen_input import WidenInput

__all__ = ["DIALECT", "OrtX86"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OrtX86:
    """uint8 activations on the full 8 bits of their range, Q/DQ moved next to the convolutions.

    Attributes:
        float_stem: Whether the layers that read the model's input run in float.
        integer_products: Whether matrix products are written as the runtime's own operator, with their biases.
        one_scale: Whether these products' weights are put on one scale per tensor.
    """

    name: str = "ort-x86"
    float_stem: bool = False
    integer_products: bool = False
    one_scale: bool = False

    def rewrite(self, model: ir.Model) -> Rewrite:
        """Write every activation as uint8, then move Q/DQ to where ONNX Runtime looks for them."""
        run_passes(model, [FoldPad()])  # export has done it; a graph that came as ONNX is as it came
        same = regrid(model, "uint8")
        stem = FloatStem()
        if self.float_stem:
            same = not run_passes(model, [stem]) and same
        left = left_alone(model)  # before Pad comes to read integers
        run_passes(model, [HoistQuantize()])
        products = IntegerProducts(one_scale=self.one_scale)
        if self.integer_products:
            same = not run_passes(model, [products]) and same
        same = not run_passes(model, [QuantizeBias()]) and same
        run_passes(model, [AverageAsConv(), WidenInput(), OwnZeroPoints(), MatMulNBits(), PackInt4()])
        events = (*left, *unquantized_outputs(model, "ONNX Runtime"), *float_on_purpose(stem.changed))
        return Rewrite(same_points=same, coarser=products.coarser, events=events)


DIALECT = OrtX86()
