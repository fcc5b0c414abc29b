"""The graph as export writes it: the form to fall back on where a runtime loses accuracy in its own.

Symmetric int8 activations (where the target's runtimes take it, uint8 for what is never negative), Q/DQ in front of the layers
alone. Every runtime computes it (TensorRT what is int8); few are fast at it.
"""

from __future__ import annotations

import onnx_ir as ir

from edgeopt.graph.dialects.base import Rewrite

__all__ = ["DIALECT", "Neutral"]


class Neutral:
    """The identity; 0 outputs differ."""

    name = "neutral"

    def rewrite(self, model: ir.Model) -> Rewrite:  # noqa: ARG002 (the protocol's)
        """Change nothing."""
        return Rewrite(same_points=True)


DIALECT = Neutral()
