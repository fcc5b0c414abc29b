"""Copies of a graph that can be changed."""

from __future__ import annotations

import copy
import warnings

from torch.fx import GraphModule

__all__ = ["copied"]


def copied(model: GraphModule) -> GraphModule:
    """A deep copy, without torch's warning about its own tree specs."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
        return copy.deepcopy(model)
