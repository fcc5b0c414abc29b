"""Which ONNX node came from which fx node.

torch's exporter decomposes the program first, and that renames nodes: ``add`` may come back as ``add_3`` while another
node takes the old name. A name alone proves nothing. What holds is order: decomposition keeps operations that ONNX has,
one to one and in order. So the two graphs' nodes of one target are paired in order where their counts agree, and an
ONNX node names its decomposed fx node in its metadata.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir

from edgeopt.core.errors import GraphError
from edgeopt.graph.qdq import BITS_KEY, NODE_KEY, RANGE_KEY, array_of

if TYPE_CHECKING:
    from torch.fx import Graph, Node

__all__ = ["fx_name", "mark_nodes", "place_ranges", "place_weight_bits"]

_FX_KEY = "pkg.torch.onnx.fx_node"
_FX_NAME = re.compile(r"%(\w+)")
_WEIGHTED = ("conv", "linear", "addmm", "matmul", "mm", "bmm", "baddbmm")
_QUANTIZE = "quantized_decomposed.quantize_per_tensor"


def fx_name(node: ir.Node) -> str | None:
    """The name of the decomposed fx node that the exporter made ``node`` from."""
    match = _FX_NAME.match(node.metadata_props.get(_FX_KEY, ""))
    return match[1] if match else None


def mark_nodes(model: ir.Model, source: Graph, decomposed: Graph) -> None:
    """Write metadata ``edgeopt.node`` (the fx name in ``source``) onto every Conv, ConvTranspose, Gemm and MatMul.

    A convolution that BatchNorm was folded into carries the BatchNorm's name: its input leads back to the convolution.
    """
    names = _pair_weighted(source, decomposed)
    nodes = {node.name: node for node in decomposed.nodes}
    for node in model.graph:
        if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            continue
        fx: Node | None = nodes.get(fx_name(node) or "")
        while fx is not None and ("batch_norm" in _target(fx) or "getitem" in _target(fx)):
            fx = fx.all_input_nodes[0] if fx.all_input_nodes else None
        if fx is not None and _is_weighted(fx) and fx.name in names:
            node.metadata_props[NODE_KEY] = names[fx.name]


def place_ranges(model: ir.Model, source: Graph, decomposed: Graph, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Write each range of ``ranges`` (by fx name in ``source``) onto its QuantizeLinear.

    Raises:
        GraphError: A name is no quantize node, its range is not finite and ordered, or no QuantizeLinear with its
            scale is left in the graph.
    """
    originals = {node.name: node for node in source.nodes}
    back = {new: old for new, old in _pair(source, decomposed).items() if _QUANTIZE in _target(originals[old])}
    forward = {old: new for new, old in back.items()}
    found = {fx_name(node): node for node in model.graph if node.op_type == "QuantizeLinear"}
    for name, (low, high) in ranges.items():
        original = originals.get(name)
        if original is None or _QUANTIZE not in _target(original):
            known = ", ".join(n for n, fx in originals.items() if _QUANTIZE in _target(fx))
            raise GraphError("A recorded range names no quantize node.", got=name, fix=f"The program has: {known}.")
        if not (np.isfinite(low) and np.isfinite(high) and low <= high):
            raise GraphError(f"The recorded range of {name} is not a range.", got=f"({low}, {high})")
        node = _quantizer(original, forward, found)
        if node is None or not _same_scale(node, original):
            raise GraphError(
                "A recorded range cannot be placed: the exported graph has no QuantizeLinear for it.",
                got=name,
                fix="Export with the ranges of this very program.",
            )
        node.metadata_props[RANGE_KEY] = f"{float(low)!r} {float(high)!r}"


def place_weight_bits(model: ir.Model, bits: Mapping[str, int]) -> None:
    """Write each number of ``bits`` (by fx name, as ``mark_nodes`` wrote it) onto its Conv, Gemm or MatMul.

    Raises:
        GraphError: No such node is left in the graph.
    """
    marked = {node.metadata_props[NODE_KEY]: node for node in model.graph if NODE_KEY in node.metadata_props}
    for name, count in bits.items():
        if name not in marked:
            raise GraphError(
                "A weight's bits cannot be placed: the exported graph has no such layer.",
                got=name,
                fix=f"It has {', '.join(sorted(marked)) or 'none'}.",
            )
        marked[name].metadata_props[BITS_KEY] = str(count)


def _quantizer(original: Node, forward: Mapping[str, str], found: Mapping[str | None, ir.Node]) -> ir.Node | None:
    """The QuantizeLinear of ``original``, or of a twin (same tensor, same grid) that it was merged with."""
    node = found.get(forward.get(original.name))
    if node is not None:
        return node
    for twin in original.all_input_nodes[0].users if original.all_input_nodes else ():
        if twin.target is original.target and twin.args == original.args:
            node = found.get(forward.get(twin.name))
            if node is not None:
                return node
    return None


def _same_scale(node: ir.Node, original: Node) -> bool:
    scale, expected = array_of(node.inputs[1]), original.args[1]
    if not isinstance(expected, float):
        return scale is not None
    return scale is not None and scale.size == 1 and bool(scale.reshape(-1)[0] == np.float32(expected))


def _pair(source: Graph, decomposed: Graph) -> dict[str, str]:
    """Name in ``decomposed`` → name in ``source``, for every target that both have equally often."""
    old, new = _by_target(source), _by_target(decomposed)
    pairs: dict[str, str] = {}
    for target, nodes in new.items():
        twins = old.get(target, [])
        if len(twins) == len(nodes):
            pairs.update(zip(nodes, twins, strict=True))
    return pairs


def _pair_weighted(source: Graph, decomposed: Graph) -> dict[str, str]:
    """Likewise for weighted ops, whose target may change on the way: ``conv1d.padding`` becomes ``convolution``."""
    old, new = ([node.name for node in graph.nodes if _is_weighted(node)] for graph in (source, decomposed))
    return dict(zip(new, old, strict=True)) if len(old) == len(new) else _pair(source, decomposed)


def _by_target(graph: Graph) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for node in graph.nodes:
        if node.op == "call_function":
            names.setdefault(_target(node), []).append(node.name)
    return names


def _target(node: Node) -> str:
    return str(node.target)


def _is_weighted(node: Node) -> bool:
    parts = _target(node).split(".")
    return len(parts) > 1 and parts[0] == "aten" and parts[1].startswith(_WEIGHTED)
