"""A dialect with a fault: it reads one activation back at half its scale."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from edgeopt.graph.dialects.base import Rewrite
from edgeopt.graph.qdq import activation_points, add_initializer

__all__ = ["DIALECT"]


class Spoilt:
    """As ``neutral``, and wrong."""

    name = "spoilt"

    def rewrite(self, model: ir.Model) -> Rewrite:
        """Halve a scale."""
        point = activation_points(model.graph)[1]
        half = add_initializer(model.graph, "half", np.array(point.scale / 8, np.float32))
        for node in point.dequantize:
            node.replace_input_with(1, half)
        return Rewrite(same_points=True)


DIALECT = Spoilt()
