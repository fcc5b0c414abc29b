"""What each unit is worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.fx import GraphModule, Interpreter
from torch.nn import functional as F  # noqa: N812 - its name everywhere
from torch.utils import _pytree as pytree

from edgeopt.compress.attributes import attribute
from edgeopt.compress.calibrate import Feed
from edgeopt.compress.pruning.channels import ChannelGroup, ChannelMap
from edgeopt.compress.pruning.copies import copied
from edgeopt.core.errors import DataError
from edgeopt.recipes.pruning import Importance

__all__ = ["score_units"]

Scores = dict[str, Any]
"""By group: float64 [units]; the smaller, the less it matters."""


def score_units(
    channels: ChannelMap, kind: Importance, *, seed: int = 0, feed: Feed | None = None, classification: bool = True
) -> Scores:
    """Score every unit of every group.

    - ``l1``, ``l2``: |w| summed, or the root of w² summed, over all weights that go with the unit, of the layers that
      make it and of those that read it (G. Fang et al. 2023, "DepGraph", eq. 6).
    - ``bn_scale``: |γ| of its BatchNorms, mean (Z. Liu et al. 2017, "Network Slimming"); ``l2`` where there is none.
    - ``taylor``: (∂L/∂g)² for a gate g on the unit, which is Σ w · ∂L/∂w over what reads it, mean over batches
      (P. Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning", eq. 8).
    - ``random``: uniform.

    Args:
        channels: Their groups.
        kind: All but ``taylor`` are divided by their mean over the group, as layers differ in scale.
        seed: For ``random``.
        feed: For ``taylor``: labelled samples; without labels the model's own predictions stand for them.
        classification: Whether the first output has one score per class on its last axis.

    Raises:
        DataError: The data does not fit the model, or the loss is no number on it.
    """
    if kind == "taylor":
        if feed is None:
            raise TypeError("taylor needs samples")
        return _taylor(channels, feed, classification=classification)
    rng = np.random.default_rng(seed)
    found: Scores = {}
    for group in channels.groups:
        scores: Any = rng.random(group.units) if kind == "random" else None
        if kind == "bn_scale":
            scores = _norm_scale(channels, group)
        if scores is None:
            scores = _magnitude(channels, group, "l2" if kind == "bn_scale" else kind)
        mean = float(scores.mean())
        found[group.name] = scores / mean if mean > 0 else scores
    return found


def _magnitude(channels: ChannelMap, group: ChannelGroup, kind: Importance) -> Any:
    power = 1 if kind == "l1" else 2
    total = np.zeros(group.units)
    for tensor, axis, places in _weights(channels, group):
        value = tensor.detach().double().abs().pow(power).movedim(axis, 0).flatten(1).sum(1)
        total += value.numpy()[places].sum(1)
    return total if kind == "l1" else np.sqrt(total)


def _norm_scale(channels: ChannelMap, group: ChannelGroup) -> Any | None:
    found = [
        attribute(channels.model, name).detach().double().abs().numpy()[places].mean(1)
        for (name, _), places in group.slices.items()
        if name in channels.tracer.norms
    ]
    return np.mean(found, axis=0) if found else None


def _weights(channels: ChannelMap, group: ChannelGroup) -> Iterator[tuple[torch.Tensor, int, Any]]:
    """Parameters with two or more axes that go with the group's units."""
    for (name, axis), places in group.slices.items():
        value = attribute(channels.model, name)
        if isinstance(value, torch.nn.Parameter) and value.ndim > 1 and value.is_floating_point():
            yield value, axis, places


def _taylor(channels: ChannelMap, feed: Feed, *, classification: bool) -> Scores:
    model = copied(channels.model)
    readers = {group.name: _readers(channels, group) for group in channels.groups}
    names = {name for found in readers.values() for name, _, _ in found}
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    weights = {name: attribute(model, name).requires_grad_(True) for name in sorted(names)}
    totals = {group.name: np.zeros(group.units) for group in channels.groups}
    batches = 0
    with torch.enable_grad():
        for batch in feed.split.batches(feed.size, feed.limit):
            loss = _loss(model, feed.tensors(batch), batch.targets, classification=classification)
            if not bool(torch.isfinite(loss)):
                raise DataError(
                    "The loss is no number, so that no importance follows from it.",
                    got=f"{float(loss)} on batch {batches + 1}",
                    fix="Check the data and the model's weights, or set steps.prune.importance=l2.",
                )
            slopes = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
            products = {
                name: (weight * slope).detach().double()
                for (name, weight), slope in zip(weights.items(), slopes, strict=True)
                if slope is not None
            }
            for group in channels.groups:
                totals[group.name] += _gates(readers[group.name], products, group.units) ** 2
            batches += 1
    return {name: total / max(batches, 1) for name, total in totals.items()}


def _gates(readers: Sequence[tuple[str, int, Any]], products: dict[str, torch.Tensor], units: int) -> Any:
    """∂L/∂g of each unit."""
    total = np.zeros(units)
    for name, axis, places in readers:
        if name in products:
            total += products[name].movedim(axis, 0).flatten(1).sum(1).numpy()[places].sum(1)
    return total


def _readers(channels: ChannelMap, group: ChannelGroup) -> list[tuple[str, int, Any]]:
    """Where the units are read: a gate there is a gate on the unit. Where nothing reads them with a weight: their makers."""
    reads = [
        (name, axis, places) for (name, axis), places in group.slices.items() if (name, axis) in channels.tracer.reads
    ]
    if reads:
        return reads
    return [
        (name, axis, places)
        for (name, axis), places in group.slices.items()
        if attribute(channels.model, name).ndim > 1 and isinstance(attribute(channels.model, name), torch.nn.Parameter)
    ]


def _loss(model: GraphModule, inputs: list[torch.Tensor], labels: Any, *, classification: bool) -> torch.Tensor:
    outputs = Interpreter(model).run(*inputs, enable_io_processing=False)
    leaves = [x for x in pytree.tree_leaves(outputs) if isinstance(x, torch.Tensor) and x.is_floating_point()]
    if not classification:  # no labels that a loss is known for: how far the outputs themselves would move
        return torch.stack([(x * x.detach()).mean() for x in leaves]).sum()
    scores = leaves[0].flatten(0, -2)
    wanted = scores.argmax(-1) if labels is None else torch.from_numpy(np.asarray(labels, np.int64)).reshape(-1)
    return F.cross_entropy(scores[: len(wanted)], wanted)
