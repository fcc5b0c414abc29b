"""Tells torchao's pt2e where quantizers go: at the inputs of the layers that were chosen, nowhere else."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.quantizer import (
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
    SharedQuantizationSpec,
)

from edgeopt.compress.grouped import GroupedWeightObserver
from edgeopt.compress.layers import Layer
from edgeopt.compress.observers import ActivationObserver, WeightObserver
from edgeopt.compress.outputs import absorbed
from edgeopt.compress.pair_sums import meets_in_pairs
from edgeopt.compress.ranges import CLIPPED, INT8_MAX, INT8_MIN
from edgeopt.recipes.schema import Qat, Quantize, weight_only
from edgeopt.targets.schema import QuantizationRules

__all__ = ["EdgeQuantizer"]


class EdgeQuantizer(Quantizer):  # type: ignore[misc]
    """Annotates the layers of a plan. An activation that several of them read is quantized once."""

    def __init__(self, layers: Sequence[Layer], rules: QuantizationRules, config: Quantize) -> None:
        super().__init__()
        self._layers = {layer.node: layer for layer in layers if layer.quantized}
        self._activation = QuantizationSpec(
            dtype=torch.int8,
            quant_min=INT8_MIN,
            quant_max=INT8_MAX,
            qscheme=torch.per_tensor_symmetric,
            observer_or_fake_quant_ctr=ActivationObserver.with_args(
                observer=config.observer,
                percentile=config.percentile,
                momentum=config.momentum,
                # Training learns on this very grid and makes up for what it clips; finer ones come only afterwards.
                clipped=1.0 if isinstance(config, Qat) else CLIPPED,
            ),
        )
        self._per_channel = rules.per_channel_weights and config.weight_granularity == "channel"
        self._weight_range = config.weight_range
        self._group_size = config.group_size or 0
        self._repair = rules.saturation == "repair"

    def annotate(self, model: GraphModule) -> GraphModule:
        """Mark the inputs to quantize in the nodes' metadata."""
        for node in model.graph.nodes:
            layer = self._layers.get(node.name)
            if layer is None:
                continue
            wanted: dict[Node, QuantizationSpec | SharedQuantizationSpec] = dict.fromkeys(
                layer.sources(node), self._activation
            )
            if layer.one_grid:
                first, *others = wanted
                shared = SharedQuantizationSpec((first, node))
                wanted.update(dict.fromkeys(others, shared))
                _annotation(node).output_qspec = shared
            if layer.weighted:
                # A transposed convolution's output channels are on axis 1, split by its groups: one scale for all.
                per_channel = self._per_channel and layer.op != "conv_transpose"
                wanted[node.args[1]] = (
                    _grouped_weight(layer.weight_bits, self._group_size)
                    if weight_only(layer.precision)
                    else _weight(
                        bits=layer.weight_bits,
                        per_channel=per_channel,
                        weight_range=self._weight_range,
                        pairs=self._repair and layer.weight_bits == 8 and _in_pairs(node),
                    )
                )
            _annotation(node).input_qspec_map.update(wanted)
            if layer.quantize_output:
                _annotation(absorbed(node)).output_qspec = self._activation
        return model

    def validate(self, model: GraphModule) -> None:
        """Nothing to check: the plan was made for this graph."""


def _in_pairs(node: Node) -> bool:
    weight = node.args[1]
    groups = node.args[6] if len(node.args) > 6 and isinstance(node.args[6], int) else 1
    return isinstance(weight, Node) and meets_in_pairs(weight.meta["val"].shape, groups)


def _weight(*, bits: int, per_channel: bool, weight_range: str, pairs: bool) -> QuantizationSpec:
    limit = 2 ** (bits - 1) - 1
    return QuantizationSpec(
        dtype=torch.int8,
        quant_min=-limit,
        quant_max=limit,
        qscheme=torch.per_channel_symmetric if per_channel else torch.per_tensor_symmetric,
        ch_axis=0,
        observer_or_fake_quant_ctr=WeightObserver.with_args(
            bits=bits, per_channel=per_channel, weight_range=weight_range, pairs=pairs
        ),
    )


def _grouped_weight(bits: int, group_size: int) -> QuantizationSpec:
    limit = 2 ** (bits - 1) - 1
    return QuantizationSpec(
        dtype=torch.int8,
        quant_min=-limit,
        quant_max=limit,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
        observer_or_fake_quant_ctr=GroupedWeightObserver.with_args(bits=bits, group_size=group_size),
    )


def _annotation(node: Node) -> QuantizationAnnotation:
    """The node's annotation; an empty one is added where it has none."""
    return node.meta.setdefault("quantization_annotation", QuantizationAnnotation(_annotated=True))
