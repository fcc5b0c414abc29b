"""ONNX Runtime on x86 without VNNI: as with it, on weights of 7 bits.

Before VNNI the product of uint8 and int8 is summed pairwise in int16: 255·127·2 saturates, and the result is wrong
without a word. Weights within ±64 cannot saturate (255·64·2 < 32768).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgeopt.core.events import Event
from edgeopt.graph.dialects.base import Rewrite
from edgeopt.graph.dialects.ort_x86 import OrtX86
from edgeopt.graph.qdq import array_of, weight_nodes

__all__ = ["DIALECT", "OrtX86NoVnni"]

_SAFE = 64


class OrtX86NoVnni:
    """The ``ort-x86`` dialect, with a warning for each weight that may saturate."""

    name = "ort-x86-novnni"

    def rewrite(self, model: ir.Model) -> Rewrite:
        """Rewrite as ``ort-x86`` does, and look at the weights."""
        rewrite = OrtX86().rewrite(model)
        warnings = []
        for node in weight_nodes(model.graph):
            weight = array_of(node.inputs[0])
            if weight is None or weight.dtype != np.int8 or not weight.size:
                continue  # a bias is int32: it is added, not multiplied
            peak = int(np.abs(weight.astype(np.int16)).max())
            if peak > _SAFE:
                message = f"The weight reaches ±{peak}; beyond ±{_SAFE} sums of products may saturate without VNNI."
                warnings.append(Event(kind="warning", stage="dialect", message=message, node=node.name))
        return Rewrite(same_points=rewrite.same_points, events=(*rewrite.events, *warnings))


DIALECT = OrtX86NoVnni()
