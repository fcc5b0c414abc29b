"""Conv(Pad(x)) becomes Conv(x) with the zeros in its own ``pads``.

TensorFlow's "same" padding with stride 2 is asymmetric, which torch writes as a Pad of its own in front of the
convolution. ONNX's Conv takes asymmetric ``pads``. Left alone, the Pad stands between a convolution and the
QuantizeLinear that ONNX Runtime must find right behind it, and that convolution then runs in float.

Zero is a point of every grid, so Pad and QuantizeLinear/DequantizeLinear trade places exactly. Pools are no such case:
zeros take part in a maximum, and a padded AveragePool counts them only if it is told to.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from edgeopt.graph.qdq import array_of

__all__ = ["FoldPad", "is_zero_pad"]


class FoldPad(ir.passes.InPlacePass):
    """Fold constant zero padding of spatial axes into the convolutions behind it; values stay the same.

    Only where every reader of the Pad, past QuantizeLinear and DequantizeLinear, is the data input of a Conv.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fold from the last Pad to the first, so that one Pad behind another is folded as well."""
        folded = [node for node in reversed(list(model.graph)) if node.op_type == "Pad" and _fold(model.graph, node)]
        return ir.passes.PassResult(model, modified=bool(folded))


def is_zero_pad(node: ir.Node) -> bool:
    """Whether a node pads with the constant 0, or with nothing."""
    if node.op_type != "Pad" or node.attributes.get_string("mode", "constant") != "constant":
        return False
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return True
    value = array_of(node.inputs[2])
    return value is not None and bool((value == 0).all())


def _fold(graph: ir.Graph, pad: ir.Node) -> bool:
    source = pad.inputs[0]
    readers = list(_readers(pad.outputs[0]))
    if source is None or not is_zero_pad(pad) or not readers:
        return False
    amounts = [None if conv is None else _spatial_pads(pad, conv) for conv in readers]
    if any(amount is None for amount in amounts):
        return False
    for conv, amount in zip(readers, amounts, strict=True):
        if conv is not None and amount is not None:
            _add_pads(conv, amount)
    for value in _between(pad.outputs[0]):
        # another tensor than the one that torch knows by this name
        value.name, value.shape = f"{value.name}_of_{source.name}", None
    pad.outputs[0].replace_all_uses_with(source)
    graph.remove(pad, safe=True)
    return True


def _readers(value: ir.Value) -> Iterator[ir.Node | None]:
    """Each Conv that pads for itself and reads ``value`` as its data, past Q and DQ; None for anything else."""
    if value.is_graph_output():
        yield None
    for node, index in value.uses():
        if index == 0 and node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            yield from _readers(node.outputs[0])
        elif index == 0 and node.op_type == "Conv" and node.attributes.get_string("auto_pad", "NOTSET") in _EXPLICIT:
            yield node
        else:
            yield None


_EXPLICIT = ("NOTSET", "VALID")


def _between(value: ir.Value) -> Iterator[ir.Value]:
    """What Q and DQ make of ``value``."""
    for node in value.consumers():
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            yield node.outputs[0]
            yield from _between(node.outputs[0])


def _spatial_pads(pad: ir.Node, conv: ir.Node) -> list[int] | None:
    """``[begin…, end…]`` over the spatial axes of ``conv``; None where they are unknown, negative, or on other axes."""
    amounts, rank = array_of(pad.inputs[1]), _rank(conv)
    if amounts is None or rank is None:
        return None
    count = amounts.size // 2
    axes: np.ndarray | None = np.arange(count)
    if len(pad.inputs) > 3 and pad.inputs[3] is not None:
        axes = array_of(pad.inputs[3])
    elif count != rank:
        return None
    if axes is None:
        return None
    begins, ends = np.zeros(rank, np.int64), np.zeros(rank, np.int64)
    begins[axes], ends[axes] = amounts[:count], amounts[count:]
    whole = np.concatenate([begins[2:], ends[2:]])
    outside = np.concatenate([begins[:2], ends[:2]])
    return None if bool((outside != 0).any() or (whole < 0).any()) else [int(amount) for amount in whole]


def _rank(conv: ir.Node) -> int | None:
    weight = conv.inputs[1]
    maker = weight.producer() if weight is not None else None
    stored = array_of(maker.inputs[0] if maker is not None and maker.op_type == "DequantizeLinear" else weight)
    if stored is not None:
        return int(stored.ndim)
    kernel = conv.attributes.get_ints("kernel_shape", ())
    return len(kernel) + 2 if kernel else None


def _add_pads(conv: ir.Node, amounts: list[int]) -> None:
    own = [0] * len(amounts)
    if conv.attributes.get_string("auto_pad", "NOTSET") == "NOTSET":
        own = list(conv.attributes.get_ints("pads", own))
    conv.attributes.pop("auto_pad", None)
    conv.attributes.add(ir.AttrInt64s("pads", [mine + more for mine, more in zip(own, amounts, strict=True)]))
