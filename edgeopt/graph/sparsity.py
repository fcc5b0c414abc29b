"""Whether the weights of an exported graph hold an N:M pattern along their input channels, float or integers behind Q/DQ.

The groups are those that TensorRT looks at: a Conv's [O, I, kh, kw] along I, a matrix along the axis that is summed over
(NVIDIA TensorRT documentation, Structured Sparsity).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgeopt.core.errors import GraphError
from edgeopt.core.sparsity import Pattern, held_share
from edgeopt.graph.io import load_onnx
from edgeopt.graph.qdq import NODE_KEY, SPARSITY_KEY, array_of, weighted_nodes

__all__ = ["LayerSparsity", "layer_sparsity", "mark_sparsity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSparsity:
    """One Conv, Gemm or MatMul.

    Attributes:
        name: The fx node that it came from, where edgeopt exported the graph; else its output's name.
        share: Of the groups, those that hold the pattern; 0 where the input channels do not fill groups, and where they
            are themselves in groups (a grouped convolution).
        marked: The pattern that it is meant to hold; empty: none.
    """

    name: str
    share: float
    marked: str = ""


def layer_sparsity(onnx: Path, pattern: str = "2:4") -> tuple[LayerSparsity, ...]:
    """Every Conv, Gemm and MatMul with a constant weight, in the graph's order.

    Args:
        onnx: Any ONNX file.
        pattern: What a layer without a mark is looked at for; one with a mark, for that.
    """
    return _layers(load_onnx(onnx), pattern)


def mark_sparsity(model: ir.Model, wanted: Mapping[str, str]) -> None:
    """Prove that layers hold their pattern, and say so on each as metadata ``edgeopt.sparsity``.

    Args:
        model: As ``mark_nodes`` left it; mutated.
        wanted: fx name of a layer → its pattern.

    Raises:
        GraphError: A layer does not hold it, or is not there.
    """
    marked = {node.metadata_props[NODE_KEY]: node for node in model.graph if NODE_KEY in node.metadata_props}
    for name, pattern in wanted.items():
        if name not in marked:
            raise GraphError(
                "A sparse layer is not in the exported graph.",
                got=name,
                fix=f"It has {', '.join(sorted(marked)) or 'none'}.",
            )
        marked[name].metadata_props[SPARSITY_KEY] = pattern
    known = {layer.name: layer for layer in _layers(model, "2:4") if layer.marked}
    broken = [f"{name} {100 * known[name].share:.2f} %" if name in known else name for name in wanted]
    broken = [text for text, name in zip(broken, wanted, strict=True) if name not in known or known[name].share < 1.0]
    if broken:
        rest = f" and {len(broken) - 5} more" if len(broken) > 5 else ""
        raise GraphError(
            f"Layers that were made sparse no longer hold their pattern in the exported graph "
            f"({len(broken)} of {len(wanted)}).",
            got=f"groups that hold it: {', '.join(broken[:5])}{rest}",
            fix="Please report this, with the recipe; leave the layer out with --set steps.sparsify.skip=[PATTERN].",
        )


def _layers(model: ir.Model, pattern: str) -> tuple[LayerSparsity, ...]:
    found = []
    for node, weight, dequantize in weighted_nodes(model.graph):
        if node.op_type == "ConvTranspose":
            continue
        name = node.metadata_props.get(NODE_KEY, node.outputs[0].name or "")
        marked = node.metadata_props.get(SPARSITY_KEY, "")
        axis = _input_axis(node)
        share = 0.0
        if axis is not None:
            share = held_share(_centred(weight, dequantize), Pattern.read(marked or pattern), axis)
        found.append(LayerSparsity(name=name, share=share, marked=marked))
    return tuple(found)


def _input_axis(node: ir.Node) -> int | None:
    """The axis of the stored weight that is summed over; None where a sparse kernel does not apply."""
    if node.op_type == "Conv":
        return 1 if node.attributes.get_int("group", 1) == 1 else None
    value, swapped = node.inputs[1], node.op_type == "Gemm" and bool(node.attributes.get_int("transB", 0))
    producer = value.producer() if value is not None else None
    while producer is not None and producer.op_type in ("Transpose", "Reshape"):
        swapped ^= producer.op_type == "Transpose"
        source = producer.inputs[0]
        producer = source.producer() if source is not None else None
    return -1 if swapped else -2


def _centred(weight: np.ndarray, dequantize: ir.Node | None) -> np.ndarray:
    """The weight less its zero point: zero where the value that is computed with is."""
    zero = array_of(dequantize.inputs[2]) if dequantize is not None and len(dequantize.inputs) > 2 else None
    if zero is None or not (zero != 0).any():
        return weight
    if zero.size > 1:
        axis = dequantize.attributes.get_int("axis", 1) % weight.ndim if dequantize is not None else 1
        if zero.size != weight.shape[axis]:
            return np.ones_like(weight, np.int32)  # of a grid per group, which edgeopt never writes with zero points
        zero = zero.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
    return weight.astype(np.int32) - zero.astype(np.int32)
