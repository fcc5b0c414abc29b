"""AdaRound: whether each weight is rounded up or down is chosen so that the layer's output stays as it was.

Source: M. Nagel et al. 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization", section 3: per layer and
output channel, argmin over Δw of E[(Δw·x)²], a quadratic form in the Gram matrix of the inputs; section 4.2, "asymmetric
reconstruction": inputs come from the quantized layers before it, the output to keep from the float ones. The paper relaxes
the binary choice and runs Adam on it; here it is solved as it stands, by coordinate descent: one column of the weight at a
time flips wherever that lowers the error, until nothing does. It has no learning rate, never ends worse than it began, and
the same data give the same integers. The Gram matrix takes every position of every sample in constant memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from edgeopt.compress.calibrate import Feed
from edgeopt.compress.evaluate import Quantized
from edgeopt.compress.frontier import Frontier
from edgeopt.compress.layers import Layer
from edgeopt.compress.observers import WeightObserver
from edgeopt.compress.patches import patches, weight_matrix
from edgeopt.core.events import Progress, ProgressListener
from edgeopt.recipes.schema import AdaRound

__all__ = ["LayerGain", "adaround", "round_to_output"]

_PASSES = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerGain:
    """Mean squared error of one layer's output, per value, with the nearest integers and with the chosen ones."""

    nearest: float
    chosen: float


def adaround(
    prepared: GraphModule, layers: Sequence[Layer], feed: Feed, config: AdaRound, progress: ProgressListener
) -> dict[str, LayerGain]:
    """Choose the integers of every quantized conv and linear, first to last; the observers of ``prepared`` keep them.

    A weight that several layers share, and transposed convolutions, keep the nearest integers.

    Args:
        prepared: With fixed ranges.
        layers: As ``find_layers`` judged them.
        feed: Calibration samples; the first ``config.samples`` are read.
        config: The recipe's.
        progress: Told about each layer.

    Returns:
        What it brought, by node name.
    """
    wanted = {layer.node for layer in layers if layer.quantized and layer.op in ("conv", "linear")}
    nodes = [n for n in prepared.graph.nodes if n.name in wanted and _observer(prepared, n) is not None]
    frontier = Frontier(prepared, feed, config.samples)
    gains = {}
    for done, node in enumerate(nodes, 1):
        observer = _observer(prepared, node)
        if observer is not None and len(node.args[1].users) == 1:
            gains[node.name] = _round_layer(node, observer, frontier, config)
            frontier.renew(node)
        progress(Progress(stage="round weights", done=done, total=len(nodes)))
    return gains


def round_to_output(
    weight: torch.Tensor, step: torch.Tensor, quant_max: int, gram: torch.Tensor, wanted: torch.Tensor
) -> torch.Tensor:
    """Integers Z, each a neighbour of weight/step (a weight of zero stays zero: it may be part of a pattern), with a small Σ (s·Z·G·Zᵀ·s − 2 s·Z·wanted) over output channels.

    Args:
        weight: float64 [O, K]; any number of axes before these two are groups on their own, here and below.
        step: float64 [O, 1], > 0.
        quant_max: The largest integer; the smallest is its negative.
        gram: float64 [K, K]: Σ x·xᵀ over rows, symmetric, positive definite.
        wanted: float64 [K, O]: Σ x·yᵀ, y the output to keep.

    Returns:
        float64 [O, K], whole numbers. The error is that of the nearest integers or less.
    """
    scaled = weight / step
    low = scaled.floor().clamp(-quant_max, quant_max)
    high = torch.where(weight == 0, low, (low + 1).clamp(-quant_max, quant_max))
    chosen = scaled.round().clamp(-quant_max, quant_max)
    slope = 2 * ((chosen * step) @ gram - wanted.transpose(-1, -2))  # of the error, by each weight
    curvature = gram.diagonal(dim1=-2, dim2=-1)
    for _ in range(_PASSES):
        flipped = 0
        for column in range(weight.shape[-1]):
            now = chosen[..., column]
            other = low[..., column] + high[..., column] - now
            change = (other - now) * step[..., 0]
            flip = change * slope[..., column] + change.square() * curvature[..., column, None] < 0
            count = int(flip.sum())
            if count:
                change = torch.where(flip, change, 0.0)
                chosen[..., column] = torch.where(flip, other, now)
                slope += 2.0 * change[..., None] * gram[..., column, None, :]
                flipped += count
        if not flipped:
            break
    return chosen


def _round_layer(node: Node, observer: WeightObserver, frontier: Frontier, config: AdaRound) -> LayerGain:
    weight, gram, wanted, power, rows = _statistics(node, frontier)
    groups, outputs, terms = weight.shape
    stored, scale = observer.encode(_weight_of(node, frontier.reference))
    steps = (scale if observer.per_channel else scale.expand(groups * outputs)).double().reshape(groups, outputs, 1)
    nearest = stored.double().reshape(weight.shape)
    # the damping pulls towards the float weights: as if inputs of that power, all different, were seen as well
    damping = (config.damping * gram.diagonal(dim1=1, dim2=2).mean(1)).reshape(-1, 1, 1)
    pulled = wanted + damping * weight.transpose(1, 2)
    firm = gram + damping * torch.eye(terms, dtype=torch.float64)
    chosen = round_to_output(weight, steps, observer.quant_max, firm, pulled)
    before, after = (_error(integers * steps, gram, wanted) for integers in (nearest, chosen))
    observer.rounded = chosen.reshape(stored.shape).to(torch.int8)
    count = rows * groups * outputs
    return LayerGain(nearest=(before + power) / count, chosen=(after + power) / count)


def _error(values: torch.Tensor, gram: torch.Tensor, wanted: torch.Tensor) -> float:
    """Σ (x·w − y)² over rows and outputs, but for Σ y²."""
    return float(((values @ gram) * values).sum() - 2 * (values * wanted.transpose(1, 2)).sum())


def _weight_of(node: Node, reference: Quantized) -> torch.Tensor:
    """The float weight of a layer."""
    source = node.args[1].args[0]  # type: ignore[union-attr]
    value: torch.Tensor = reference.fetch_attr(str(source.target))  # type: ignore[union-attr]
    return value.detach()


def _statistics(node: Node, frontier: Frontier) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float, int]:
    """The weight [G, O, K], Σ x·xᵀ [G, K, K], Σ x·yᵀ [G, K, O], Σ y² and how many rows, in float64."""
    raw = _weight_of(node, frontier.reference)
    weight = weight_matrix(node, raw)
    groups, outputs, terms = weight.shape
    gram = torch.zeros(groups, terms, terms, dtype=torch.float64)
    wanted = torch.zeros(groups, terms, outputs, dtype=torch.float64)
    power, rows = 0.0, 0
    for mine, theirs in frontier.inputs(node):
        for x, original in zip(patches(node, mine, raw), patches(node, theirs, raw), strict=True):
            y = original @ weight.transpose(1, 2)
            gram += (x.transpose(1, 2) @ x).double()
            wanted += (x.transpose(1, 2) @ y).double()
            power += float(y.double().square().sum())
            rows += x.shape[1]
    return weight.double(), gram, wanted, power, rows


def _observer(model: GraphModule, node: Node) -> WeightObserver | None:
    source = node.args[1]
    module = (
        model.get_submodule(str(source.target)) if isinstance(source, Node) and source.op == "call_module" else None
    )
    return module if isinstance(module, WeightObserver) else None
