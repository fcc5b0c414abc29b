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
from edgeopt.graph.qdq import NODE_KEY, SPARSITY_KEY, array_of

__all__ = ["LayerSparsity", "layer_sparsity", "layers_beside_marked", "mark_sparsity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSparsity:
    """One Conv, Gemm or MatMul.

    Attributes:
        name: The fx node that it came from, where edgeopt exported the graph; else its output's name.
        share: Of the groups, those that hold the pattern; 0 where the input channels do not fill groups, and where they
            are themselves in groups (a grouped convolution). None where a runtime's own op holds the weight, packed.
        marked: The pattern that it is meant to hold; empty: none.
    """

    name: str
    share: float | None
    marked: str = ""


def layer_sparsity(onnx: Path, pattern: str = "2:4") -> tuple[LayerSparsity, ...]:
    """Every Conv, Gemm and MatMul with a constant weight, in the graph's order.

    Args:
        onnx: Any ONNX file.
        pattern: What a layer without a mark is looked at for; one with a mark, for that.
    """
    return _layers(load_onnx(onnx), pattern)


def layers_beside_marked(onnx: Path) -> tuple[LayerSparsity, ...]:
    """``layer_sparsity`` where at least one layer has a mark; else nothing, and no weight is looked at."""
    model = load_onnx(onnx)
    return _layers(model, "2:4") if any(SPARSITY_KEY in node.metadata_props for node in model.graph) else ()


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
    shares = {name: known[name].share if name in known else None for name in wanted}
    broken = [
        name if share is None else f"{name} {100 * share:.2f} %" for name, share in shares.items() if share != 1.0
    ]
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
    for node in model.graph:
        marked = node.metadata_props.get(SPARSITY_KEY, "")
        name = node.metadata_props.get(NODE_KEY, node.outputs[0].name or "")
        if node.op_type not in ("Conv", "Gemm", "MatMul") or node.domain not in ("", "ai.onnx"):
            if marked:
                found.append(LayerSparsity(name=name, share=None, marked=marked))
            continue
        weight, transposes = _weight(node)
        if weight is None:
            continue
        if node.op_type == "Conv":
            axis = 1
        else:
            transposes += node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1
            axis = -1 if transposes % 2 else -2
        whole = node.op_type != "Conv" or node.attributes.get_int("group", 1) == 1
        share = held_share(weight, Pattern.read(marked or pattern), axis) if whole else 0.0
        found.append(LayerSparsity(name=name, share=share, marked=marked))
    return tuple(found)


def _weight(node: ir.Node) -> tuple[np.ndarray | None, int]:
    """A node's constant weight, zero where what it stands for is, and how many transposes it is read through."""
    value, transposes, shape = node.inputs[1], 0, None
    producer = value.producer() if value is not None else None
    while producer is not None and producer.op_type in ("Transpose", "Reshape"):
        transposes += producer.op_type == "Transpose"
        shape = array_of(producer.inputs[1]) if producer.op_type == "Reshape" else shape
        value = producer.inputs[0]
        producer = value.producer() if value is not None else None
    if producer is not None and producer.op_type == "DequantizeLinear":
        stored = array_of(producer.inputs[0])
        weight = None if stored is None else _centred(stored, producer)
    else:
        weight = array_of(value)
    if weight is not None and shape is not None and (shape > 0).all():
        weight = weight.reshape(shape)
    return weight, transposes


def _centred(weight: np.ndarray, dequantize: ir.Node) -> np.ndarray:
    """The integers less their zero point."""
    zero = array_of(dequantize.inputs[2]) if len(dequantize.inputs) > 2 else None
    if zero is None or not (zero != 0).any():
        return weight
    axis = dequantize.attributes.get_int("axis", 1) % weight.ndim
    if zero.size > 1 and zero.ndim == 1:
        zero = zero.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])
    elif zero.size > 1:  # a grid per block along the axis
        zero = zero.repeat(weight.shape[axis] // zero.shape[axis], axis)
    return weight.astype(np.int32) - zero.astype(np.int32)
