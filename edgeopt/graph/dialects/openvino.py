"""OpenVINO on CPUs: uint8 activations, symmetric ones for linear layers, zero points of their own, no grid that splits a kernel."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from edgeopt.graph.dialects.base import Rewrite
from edgeopt.graph.dialects.grids import left_alone, regrid
from edgeopt.graph.passes.base import run_passes
from edgeopt.graph.passes.bfloat16_products import Bfloat16Products
from edgeopt.graph.passes.block_weights import BlockWeights
from edgeopt.graph.passes.drop_branch_points import DropBranchPoints
from edgeopt.graph.passes.drop_output_points import DropOutputPoints
from edgeopt.graph.passes.float_reductions import FloatReductions
from edgeopt.graph.passes.hoist_quantize import MOVES, HoistQuantize
from edgeopt.graph.passes.own_zero_points import OwnZeroPoints
from edgeopt.graph.passes.pack_int4 import PackInt4
from edgeopt.graph.qdq import Point

__all__ = ["DIALECT", "OpenVino"]

_NOT_MOVED_OVER = frozenset({"MaxPool", "Concat", "Pad"})


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenVino:
    """uint8 activations on the full 8 bits of their range, Q/DQ in front of pools and where tensors are joined.

    OpenVINO moves Q/DQ itself, but not past a maximum pool: with the Q behind it the pool runs in float and a conversion
    follows. Its products of matrices have a kernel that takes the scales in for zero points of 0 alone: what only linear
    layers read stays symmetric int8 where its uint8 grid would have another. A transformer of 65 tokens took 1.06 of
    FP32's time with uint8 and 0.76 so (AMX; with VNNI 0.87 and 0.81; one thread, OpenVINO 2026.4.1).

    Attributes:
        signed_products: Whether those tensors stay int8.
        rounds_branches: Whether a convolution is rounded before the residual addition that reads it.
        bfloat16_products: Whether recurrent cells and products of two activations, float in an int8 graph, are bfloat16.
    """

    name: str = "openvino"
    signed_products: bool = True
    rounds_branches: bool = True
    bfloat16_products: bool = False

    def rewrite(self, model: ir.Model) -> Rewrite:
        """Write activations as uint8, without the grids that part a convolution from its activation function."""
        dropped = run_passes(model, [DropOutputPoints(), FloatReductions()])
        if not self.rounds_branches:
            dropped = run_passes(model, [DropBranchPoints()]) or dropped
        keep = _feeds_products if self.signed_products else lambda _: False
        same = regrid(model, "uint8", keep) and not dropped
        left = left_alone(model)  # before pools come to read integers
        run_passes(model, [HoistQuantize(_NOT_MOVED_OVER), OwnZeroPoints(), BlockWeights(), PackInt4()])
        if self.bfloat16_products:
            same = not run_passes(model, [Bfloat16Products()]) and same
        return Rewrite(same_points=same, events=tuple(left))


def _feeds_products(point: Point) -> bool:
    """Whether linear layers alone read it, directly or moved.

    Each move is looked at once: where moved copies are joined again, the ways to an end double with every join.
    """
    pending, seen, ends = list(point.dequantize), set(point.dequantize), set()
    while pending:
        node = pending.pop()
        if any(value.is_graph_output() for value in node.outputs):
            return False
        for reader in node.outputs[0].consumers():
            if reader.op_type not in MOVES:
                ends.add(reader.op_type)
            elif reader not in seen:
                seen.add(reader)
                pending.append(reader)
    return bool(ends) and ends <= {"MatMul", "Gemm"}


DIALECT = OpenVino()
