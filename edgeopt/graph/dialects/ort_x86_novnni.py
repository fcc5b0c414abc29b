"""ONNX Runtime on x86 without VNNI: as with it, on weights whose sums of products fit in 16 bits.

Before VNNI products of uint8 and int8 are summed in pairs in int16, and 255·127·2 saturates without a word. What the
weights and the inputs' ranges allow is proven, and the channels that could overflow are repaired, only they.
"""

from __future__ import annotations

import onnx_ir as ir

from edgeopt.graph.dialects.base import Rewrite
from edgeopt.graph.dialects.no_vnni import without_overflow
from edgeopt.graph.dialects.ort_x86 import OrtX86

__all__ = ["DIALECT", "OrtX86NoVnni"]


class OrtX86NoVnni:
    """The ``ort-x86`` dialect, its channels proven not to saturate, or repaired, or warned about."""

    name = "ort-x86-novnni"

    def rewrite(self, model: ir.Model) -> Rewrite:
        """Rewrite as ``ort-x86`` does, then repair on the graph that the runtime will read."""
        return without_overflow(model, OrtX86().rewrite(model), "onnxruntime")


DIALECT = OrtX86NoVnni()
