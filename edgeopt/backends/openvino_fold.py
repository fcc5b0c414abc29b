"""What an IR need not say: steps that OpenVINO's own converter (``ovc``) folds, without its traps, equal numbers, indentation."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeopt.backends.graphs import Graph

__all__ = ["fold", "unindent"]

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
    _share_limits(model)


def unindent(xml: Path) -> None:
    """Take the white space between the elements out of an IR: a fifth of what OpenVINO writes."""
    tree = ET.parse(xml)  # noqa: S314 (OpenVINO wrote it here)
    for element in tree.iter():
        element.text = (element.text or "").strip() or None
        element.tail = None
    tree.write(xml, encoding="utf-8", xml_declaration=True)


def _share_limits(model: Any) -> None:
    """Let every FakeQuantize read one constant per number: it has four, each with an element of its own in the file."""
    known: dict[tuple[str, bytes], Any] = {}
    for node in model.get_ordered_ops():
        if node.get_type_name() != "FakeQuantize":
            continue
        for index in range(1, 5):
            source = node.input_value(index)
            if source.get_node().get_type_name() == "Constant":
                key = f"{source.get_element_type()} {source.get_shape()}", source.get_node().data.tobytes()
                node.input(index).replace_source_output(known.setdefault(key, source))


def _unpacked(model: Any) -> Iterator[Any]:
    """The conversions of 4-bit constants."""
    for node in model.get_ordered_ops():
        if node.get_type_name() == "Convert" and node.input_value(0).get_element_type().get_type_name() in _PACKED:
            yield node
