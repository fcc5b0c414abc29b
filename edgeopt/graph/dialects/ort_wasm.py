"""ONNX Runtime on WebAssembly (onnxruntime-web): uint8 activations, float arithmetic where its int8 kernels are slower.

As on x86, ONNX Runtime leaves int8 activations in float or runs them through a kernel without SIMD, and folds Relu into Q
only at zero point 0 of uint8. Its SIMD kernel for uint8 by int8 adds products in 32 bits (i32x4.dot_i16x8_s): nothing
saturates. The shipped build has no relaxed SIMD, and none for depthwise convolutions. What an output costs beside its
products (quantizing a matrix of windows, requantizing) is paid back only where there are enough products.
"""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from edgeopt.core.events import Event
from edgeopt.graph.dialects.base import Rewrite
from edgeopt.graph.dialects.grids import left_alone, regrid, unquantized_outputs
from edgeopt.graph.passes.base import run_passes
from edgeopt.graph.passes.cast_weights import CastWeights
from edgeopt.graph.passes.fold_pad import FoldPad
from edgeopt.graph.passes.hoist_quantize import HoistQuantize
from edgeopt.graph.passes.own_zero_points import OwnZeroPoints
from edgeopt.graph.passes.quantize_bias import QuantizeBias

__all__ = ["DIALECT", "OrtWasm"]

_FEWEST_PRODUCTS = 60
"""Per output of a convolution. A MobileNetV2 took 1.57 of FP32's time with int8 from 0 products on, 1.12 from 60, 1.14 from 100, 1.13 from
200; a ResNet-20 0.81, 0.82, 0.82 and 0.87 (onnxruntime-web 1.30 in Chromium 156, one thread)."""


class OrtWasm:
    """The grids of ``ort-x86``; depthwise and narrow convolutions on weights that are cast to float."""

    name = "ort-wasm"

    def rewrite(self, model: ir.Model) -> Rewrite:
        """Write every activation as uint8, and leave the arithmetic of what int8 slows down in float."""
        run_passes(model, [FoldPad()])  # export has done it; a graph that came as ONNX is as it came
        same = regrid(model, "uint8")
        cast = CastWeights(_is_slow)
        same = not run_passes(model, [QuantizeBias()]) and same
        run_passes(model, [cast])
        left = left_alone(model)
        run_passes(model, [HoistQuantize(), OwnZeroPoints()])
        return Rewrite(
            same_points=same,
            events=(*left, *unquantized_outputs(model, "ONNX Runtime"), *map(_told, cast.changed)),
        )


def _is_slow(node: ir.Node, weight: np.ndarray) -> bool:
    """``weight``: [outputs, inputs per group, …] of a Conv.

    A Gemm has one row per sample, and a page has one sample: a product with a vector, which waits for memory in float and
    for packing in int8. (Tokens are multiplied by MatMul.)
    """
    if node.op_type == "Gemm":
        return True
    depthwise = node.attributes.get_int("group", 1) > 1 and weight.shape[1] == 1
    return depthwise or math.prod(weight.shape[1:]) < _FEWEST_PRODUCTS


def _told(node: ir.Node) -> Event:
    return Event(
        kind="fallback",
        stage="dialect",
        message=f"This {node.op_type} runs in float on int8 weights: onnxruntime-web's int8 kernel is slower here.",
        node=node.metadata_props.get("edgeopt.node", node.name),
    )


DIALECT = OrtWasm()
