"""No Q/DQ at all: the graph as it is."""

from __future__ import annotations

import onnx_ir as ir

from edgeopt.core.errors import GraphError
from edgeopt.graph.dialects.base import Rewrite

__all__ = ["DIALECT", "Float"]


class Float:
    """The identity, on graphs that hold no quantization."""

    name = "float"

    def rewrite(self, model: ir.Model) -> Rewrite:
        """Change nothing.

        Raises:
            GraphError: The graph is quantized.
        """
        quantized = [node for node in model.graph if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
        if quantized:
            raise GraphError(
                "The float dialect takes graphs without quantization.",
                got=f"{len(quantized)} Q/DQ nodes",
                fix="Use the dialect of the runtime, e.g. ort-x86, openvino or tensorrt.",
            )
        return Rewrite(same_points=True)


DIALECT = Float()
