"""BatchNorm re-estimation after quantization: each channel gets back the mean and the variance that it had in float.

Source: M. Nagel et al. 2021, "A White Paper on Neural Network Quantization", sections 3.5 and 4.2: statistics kept by a
BatchNorm do not fit the quantized convolution before it. The BatchNorm is folded by now, so what its re-estimated
statistics would do is written where it went: y' = (y − μ̃)·σ/σ̃ + μ multiplies the weight's scale per channel by σ/σ̃ and
changes the bias; the integers stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch.fx import GraphModule, Node

from edgeopt.compress.attributes import attribute, constant
from edgeopt.compress.bias import QuantizedMeans, channel_mean, float_means
from edgeopt.compress.calibrate import Feed
from edgeopt.compress.normalize import BATCH_NORMS, CONVS
from edgeopt.core.events import Progress, ProgressListener

__all__ = ["normalized_layers", "reestimate"]

_Q = torch.ops.quantized_decomposed
_LEAST, _MOST = 0.5, 2.0  # of σ/σ̃; beyond, a channel is nearly dead and the ratio says nothing
_VARIANCE_FLOOR = 1e-12


def normalized_layers(graph: GraphModule) -> tuple[str, ...]:
    """The convolutions of a normalized graph that a BatchNorm follows, before it is folded."""
    return tuple(
        source.name
        for node in graph.graph.nodes
        if node.target in BATCH_NORMS and isinstance(source := node.args[0], Node) and source.target in CONVS
    )


def reestimate(
    reference: GraphModule,
    quantized: GraphModule,
    axes: Mapping[str, int],
    feed: Feed,
    progress: ProgressListener,
) -> int:
    """Correct scale and bias of the layers in ``axes``, in place, each after those before it.

    Args:
        reference: The float graph; same node names.
        quantized: The converted graph, one scale per channel; mutated.
        axes: The channel axis of the output of each layer, by node name.
        feed: Calibration samples.
        progress: Told about each batch.

    Returns:
        How many layers were corrected.
    """
    able = {node.name: node for node in quantized.graph.nodes if node.name in axes and _scales(node) is not None}
    axes = {name: axes[name] for name in able}
    run, done = _Moments(quantized, axes), 0
    for inputs, count in feed.batches():
        run.reference = float_means(reference, axes, inputs, count, squares=True)
        run.collect(inputs, count)
        done += count
        progress(Progress(stage="re-estimate batch norms", done=done, total=feed.samples))
    for name, node in able.items():
        ratio, shift = run.correction(name)
        _write(quantized, node, ratio, shift)
    quantized.recompile()
    return len(able)


class _Moments(QuantizedMeans):
    """Running first and second moments per channel of both graphs; each layer's output goes on corrected."""

    def __init__(self, model: GraphModule, axes: Mapping[str, int]) -> None:
        super().__init__(model, axes)
        self.reference: dict[str, torch.Tensor] = {}
        self._sums: dict[str, torch.Tensor] = {}
        self._seen: dict[str, int] = {}

    def layer(self, name: str, output: torch.Tensor) -> torch.Tensor:
        """Note the moments; correct the output by what is known so far."""
        mean, square = (
            channel_mean(values, self.axes[name], self.count, self.rows) for values in (output, output.square())
        )
        batch = torch.cat([mean[None], square[None], self.reference[name]]) * self.count
        self._sums[name] = self._sums[name] + batch if name in self._sums else batch
        self._seen[name] = self._seen.get(name, 0) + self.count
        ratio, shift = self.correction(name)
        shape = [1] * output.ndim
        shape[self.axes[name]] = -1
        return output * ratio.to(output.dtype).reshape(shape) + shift.to(output.dtype).reshape(shape)

    def correction(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Factor and summand per channel, float64 [C]: y' = factor · y + summand."""
        mean, square, wanted, wanted_square = self._sums[name] / self._seen[name]
        deviation = (square - mean.square()).clamp_min(_VARIANCE_FLOOR).sqrt()
        wanted_deviation = (wanted_square - wanted.square()).clamp_min(_VARIANCE_FLOOR).sqrt()
        ratio = (wanted_deviation / deviation).clamp(_LEAST, _MOST)
        return ratio, wanted - ratio * mean


def _scales(node: Node) -> Node | None:
    """The constant with a layer's weight scales."""
    restored = node.args[1] if len(node.args) > 1 else None
    if (
        not isinstance(restored, Node)
        or restored.target != _Q.dequantize_per_channel.default
        or len(restored.users) > 1
    ):
        return None
    scales = restored.args[1]
    return scales if isinstance(scales, Node) and scales.op == "get_attr" else None


def _write(model: GraphModule, node: Node, ratio: torch.Tensor, shift: torch.Tensor) -> None:
    restored, scales = node.args[1], _scales(node)
    if scales is None or not isinstance(restored, Node):
        return
    old = node.args[2] if len(node.args) > 2 else None
    bias = attribute(model, str(old.target)).detach().double() if isinstance(old, Node) else 0.0
    values = attribute(model, str(scales.target)).detach().double()
    with model.graph.inserting_before(restored):
        restored.update_arg(1, constant(model, f"{node.name}_scale", (values * ratio).float()))
    with model.graph.inserting_before(node):
        new = constant(model, f"{node.name}_bias", (bias * ratio + shift).float())
    node.args = (*node.args[:2], new, *node.args[3:])
    _erase_unread(model, [scales, old])


def _erase_unread(model: GraphModule, nodes: Iterable[object]) -> None:
    for node in nodes:
        if isinstance(node, Node) and not node.users:
            model.graph.erase_node(node)
