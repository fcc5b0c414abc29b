"""OpenVINO on x86 without VNNI: as with it, on weights whose sums of products fit in 16 bits.

Its kernels saturate as ONNX Runtime's do; which weights meet differs where a convolution's channels are no multiple of four.
"""

from __future__ import annotations

import onnx_ir as ir

from edgeopt.graph.dialects.base import Rewrite
from edgeopt.graph.dialects.no_vnni import without_overflow
from edgeopt.graph.dialects.openvino import OpenVino

__all__ = ["DIALECT", "OpenVinoNoVnni"]


class OpenVinoNoVnni:
    """The ``openvino`` dialect, its channels proven not to saturate, or repaired, or warned about."""

    name = "openvino-novnni"

    def rewrite(self, model: ir.Model) -> Rewrite:
        """Rewrite as ``openvino`` does, with uint8 everywhere: the proof is for that. Then repair on the graph that the runtime will read."""
        return without_overflow(model, OpenVino(signed_products=False).rewrite(model), "openvino")


DIALECT = OpenVinoNoVnni()
