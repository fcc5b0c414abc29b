"""The original with some units' weights at zero: what the pruned program computes, without another export."""

from __future__ import annotations

import torch
from torch.fx import GraphModule

from edgeopt.compress.attributes import attribute
from edgeopt.compress.pruning.branches import drop_branches
from edgeopt.compress.pruning.channels import ChannelMap, Removed
from edgeopt.compress.pruning.copies import copied

__all__ = ["masked"]


def masked(channels: ChannelMap, removed: Removed) -> GraphModule:
    """A copy of the graph in which all that goes with the units of ``removed`` is zero.

    Its outputs are the pruned program's where every group involved is ``exact``.
    """
    model = copied(channels.model)
    with torch.no_grad():
        for name, indices in removed.items():
            chosen = list(indices)
            if not chosen:
                continue
            for (tensor, axis), places in channels.group(name).slices.items():
                value = attribute(model, tensor)
                value.index_fill_(axis, torch.from_numpy(places[chosen].reshape(-1)), 0)
    drop_branches(model.graph, channels.gone(removed))
    model.recompile()
    return model
