"""bfloat16 for a runtime without its kernels: float32, each value rounded to bfloat16 where the graph says so.

That is what a kernel of bfloat16 computes: products and sums in float32, the result rounded once. Kernels that round more
often, or fuse two operations and round once for both, differ by roundings.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from edgeopt.graph.half import retype_attributes
from edgeopt.graph.io import save_onnx
from edgeopt.graph.passes.base import run_passes
from edgeopt.graph.qdq import array_of

__all__ = ["RoundBfloat16", "has_bfloat16", "write_rounded"]

_NARROW, _SINGLE = ir.DataType.BFLOAT16, ir.DataType.FLOAT


def has_bfloat16(model: ir.Model) -> bool:
    """Whether the graph has constants of bfloat16, or casts to it: every graph with float32 inputs that computes in it does."""
    constants = any(value.dtype == _NARROW for value in model.graph.initializers.values())
    return constants or any(node.attributes.get_int("to", 0) == _NARROW.value for node in model.graph)


def write_rounded(model: ir.Model, destination: Path) -> Path:
    """Write ``model``, which is changed, so that runtimes without bfloat16 kernels run it; returns ``destination``."""
    run_passes(model, [RoundBfloat16()])
    save_onnx(model, destination)
    return destination


class RoundBfloat16(ir.passes.InPlacePass):
    """Make every value of bfloat16 one of float32, behind Cast to bfloat16 and back; constants are rounded already."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Change types, and round behind every node that made a bfloat16 value. Graph inputs and outputs keep theirs."""
        graph, modified = model.graph, False
        ShapeInferencePass(check_type=False, strict_mode=False)(model)  # a file need not say the types of inner values
        for value in list(graph.initializers.values()):
            array = array_of(value) if value.dtype == _NARROW else None
            if array is not None:
                value.const_value = ir.tensor(array.astype(np.float32), name=value.name)
                value.type, modified = ir.TensorType(_SINGLE), True
        for node in list(graph):
            retype_attributes(node, _NARROW, _SINGLE)
            for value in node.outputs:
                if value.dtype == _NARROW:
                    _round(graph, node, value)
                    modified = True
        return ir.passes.PassResult(model, modified)


def _round(graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
    """``value`` in float32, and all who read it read it rounded."""
    readers = list(value.uses())
    value.type = ir.TensorType(_SINGLE)
    narrow = ir.node("Cast", [value], {"to": _NARROW.value}, num_outputs=1, name=f"{value.name}_narrow")
    wide = ir.node("Cast", [narrow.outputs[0]], {"to": _SINGLE.value}, num_outputs=1, name=f"{value.name}_rounded")
    for made, dtype in ((narrow, _NARROW), (wide, _SINGLE)):
        made.outputs[0].name, made.outputs[0].shape = made.name, value.shape
        made.outputs[0].type = ir.TensorType(dtype)
    for reader, index in readers:
        reader.replace_input_with(index, wide.outputs[0])
    graph.insert_after(node, [narrow, wide])
