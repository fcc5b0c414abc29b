"""Raise a graph to a newer opset, where its operators mean the same in both."""

from __future__ import annotations

import onnx_ir as ir

from edgeopt.core.errors import GraphError

__all__ = ["raise_opset"]

# What a version changed beside the types that an operator takes (ONNX changelog), up to opset 22: the scale and the bias
# of GroupNormalization, which were one per group, became one per channel.
_CHANGED = {"GroupNormalization": 21}


def raise_opset(model: ir.Model, opset: int) -> None:
    """Let ``model`` import ONNX's operators at ``opset`` at least.

    Raises:
        GraphError: An operator means something else there.
    """
    current = model.opset_imports.get("", 0)
    if current >= opset:
        return
    for node in model.graph:
        if node.domain in ("", "ai.onnx") and current < _CHANGED.get(node.op_type, 0) <= opset:
            raise GraphError(
                f"The graph cannot be written at opset {opset}.",
                got=f"{node.op_type} means something else there than at opset {current}",
                fix="Choose a recipe that needs no newer opset: weights of 8 bits, float16 or float32.",
            )
    model.opset_imports[""] = opset
