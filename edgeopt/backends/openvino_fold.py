"""What an IR need not say step by step: the folding of OpenVINO's own converter (``ovc``), without its traps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from edgeopt.backends.graphs import Graph

__all__ = ["fold"]

_NOT_FOLDED = "DisableConstantFolding_0"  # what OpenVINO itself writes on a node whose value is to stay computed
_PACKED = frozenset({"i4", "u4"})


def fold(model: Any, graph: Graph) -> None:
    """Fold an ``openvino.Model`` of a static shape in place: shapes, scales, zero points, each Q and DQ into one FakeQuantize.

    The plug-in does the same at every start, so what is executed stays the same; the file is smaller. Two things are
    kept from it: it would store 4-bit weights that are converted to int8 as int8, and it would fuse attention into one
    operator, which the CPU plug-in takes apart again, with one transposition more per block.

    Args:
        model: Read from ``graph``.
        graph: The ONNX graph; one with attention is left as it is.
    """
    if "Softmax" in {node.op_type for node in graph.model.graph.node}:
        return
    from openvino._offline_transformations import apply_moc_transformations  # noqa: PLC0415

    unpacked = list(_unpacked(model))
    for node in unpacked:
        node.get_rt_info()[_NOT_FOLDED] = ""
    apply_moc_transformations(model, cf=False)
    for node in unpacked:
        del node.get_rt_info()[_NOT_FOLDED]


def _unpacked(model: Any) -> Iterator[Any]:
    """The conversions of 4-bit constants."""
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Convert" and node.input_value(0).get_element_type().get_type_name() in _PACKED:
            yield node
