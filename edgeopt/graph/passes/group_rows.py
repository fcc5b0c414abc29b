"""The neutral form of a weight with one scale per group of inputs, found in a graph.

It stands at any opset: DequantizeLinear with one group per row → Reshape to the weight [N, K] → Transpose or transB →
MatMul or Gemm. No runtime has a kernel for that: it would dequantize the whole weight in every inference, so every
dialect that knows better writes it anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgeopt.graph.passes.pack_int4 import demand_fit, is_four_bits
from edgeopt.graph.qdq import array_of, is_plain_product, weighted_nodes

__all__ = ["GroupedWeight", "grouped_weights"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupedWeight:
    """A layer y = x Wᵀ (+ b) whose W has one scale per group.

    Attributes:
        node: The MatMul or Gemm.
        name: Of the initializer that the integers come from.
        bits: 4 or 8.
        values: int8 [N, K], within ``bits``.
        scales: float32 [N, K / group].
    """

    node: ir.Node
    name: str
    bits: int
    values: np.ndarray
    scales: np.ndarray

    @property
    def group(self) -> int:
        """How many weights share a scale."""
        return int(self.values.shape[1] // self.scales.shape[1])


def grouped_weights(graph: ir.Graph) -> Iterator[GroupedWeight]:
    """Every layer of this form, in order.

    Raises:
        GraphError: A weight marked as 4 bits does not fit.
    """
    for node, _, dequantize in list(weighted_nodes(graph)):
        if dequantize is None or dequantize.inputs[0] is None:
            continue
        way = _way(node)
        rows, scales = array_of(dequantize.inputs[0]), array_of(dequantize.inputs[1])
        shape = array_of(way[-1].inputs[1]) if way and way[-1].op_type == "Reshape" else None
        if shape is None or shape.size != 2 or rows is None or rows.ndim != 2 or scales is None:
            continue
        flips = sum(step.op_type == "Transpose" for step in way) + node.attributes.get_int("transB", 0)
        per_row = scales.shape == rows.shape[:1] and dequantize.attributes.get_int("axis", 1) % 2 == 0
        if flips != 1 or not per_row or not is_plain_product(node) or int(shape[1]) % rows.shape[1]:
            continue
        if is_four_bits(node):
            demand_fit(node, rows)
        values = rows.reshape(shape)
        yield GroupedWeight(
            node=node,
            name=str(dequantize.inputs[0].name),
            bits=4 if is_four_bits(node) else 8,
            values=values,
            scales=scales.reshape(len(values), -1),
        )


def _way(node: ir.Node) -> list[ir.Node]:
    """What stands between ``node`` and its weight's DequantizeLinear, last first."""
    way: list[ir.Node] = []
    value = node.inputs[1]
    producer = value.producer() if value is not None else None
    while producer is not None and producer.op_type in ("Transpose", "Reshape"):
        way.append(producer)
        value = producer.inputs[0]
        producer = value.producer() if value is not None else None
    return way
