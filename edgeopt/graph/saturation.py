"""Proof that an int8 graph computes the same on x86 without VNNI, or which channels may not, and why.

``prove`` bounds every sum of two u8×s8 products from the stored weights and the input's range: see
``edgeopt.core.saturation`` for the arithmetic and for which weights meet.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from edgeopt.core.saturation import Pairing, Witness, kernel_rows, pair_sums, witnesses
from edgeopt.graph.integer_layers import IntegerLayer, Kernels, integer_layers, lanes_of
from edgeopt.graph.io import load_onnx

__all__ = ["LayerSaturation", "SaturationReport", "prove", "prove_model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSaturation:
    """The verdict on one layer.

    Attributes:
        node: The graph node's name; ``op`` its operator.
        channels: How many output channels it has.
        high: The largest input, as an unsigned byte.
        largest: The largest sum of two products over all channels and inputs, exact; ``smallest`` the smallest. Of a
            depthwise layer: of one product, as its kernels do not add in 16 bits.
        witnesses: One per channel that can overflow; empty: proven safe.
    """

    node: str
    op: str
    channels: int
    high: int
    largest: int
    smallest: int
    witnesses: tuple[Witness, ...]

    @property
    def is_safe(self) -> bool:
        """Whether no input makes any channel overflow."""
        return not self.witnesses


@dataclass(frozen=True, slots=True, kw_only=True)
class SaturationReport:
    """The verdict on a graph, layer by layer, in the graph's order."""

    layers: tuple[LayerSaturation, ...]

    @property
    def channels(self) -> int:
        """Output channels of all layers that multiply integers."""
        return sum(layer.channels for layer in self.layers)

    @property
    def overflowing(self) -> int:
        """Channels that some input makes overflow."""
        return sum(len(layer.witnesses) for layer in self.layers)

    @property
    def is_safe(self) -> bool:
        """Whether no input of any layer can make a sum of two products leave 16 bits."""
        return self.overflowing == 0


def prove(path: Path, kernels: Kernels = "onnxruntime") -> SaturationReport:
    """Prove the graph in a file.

    Args:
        path: An ONNX file, Q/DQ or with integer operators.
        kernels: Whose; of ``unknown`` ones any two weights of a channel are taken to meet, in depthwise layers as well.

    Raises:
        GraphError: The file cannot be read.
    """
    return prove_model(load_onnx(path), kernels)


def prove_model(model: ir.Model, kernels: Kernels = "onnxruntime") -> SaturationReport:
    """Prove a graph in memory: as ``prove``."""
    return SaturationReport(layers=tuple(_judge(layer, kernels) for layer in integer_layers(model.graph)))


def _judge(layer: IntegerLayer, kernels: Kernels) -> LayerSaturation:
    pairing: Pairing = "any" if kernels == "unknown" else "neighbours"
    orders = [kernel_rows(layer.weight, layer.layout, lanes) for lanes in lanes_of(layer, kernels)]
    found: dict[int, Witness] = {}
    if layer.is_depthwise and kernels != "unknown":
        largest, smallest = max(int(layer.weight.max()), 0), min(int(layer.weight.min()), 0)
    else:
        sums = [pair_sums(rows, pairing) for rows in orders]
        largest, smallest = max(int(s.largest.max()) for s in sums), min(int(s.smallest.min()) for s in sums)
        for rows in reversed(orders):
            found |= {one.channel: one for one in witnesses(rows, layer.high, pairing)}
    return LayerSaturation(
        node=layer.node.name or str(layer.node.outputs[0].name),
        op=layer.node.op_type,
        channels=len(orders[0]),
        high=layer.high,
        largest=largest * layer.high,
        smallest=smallest * layer.high,
        witnesses=tuple(found[channel] for channel in sorted(found)),
    )
