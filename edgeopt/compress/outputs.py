"""Where a convolution ends, for a runtime: what it absorbs into its int8 kernel, and whether a Q comes right behind.

ONNX Runtime computes a convolution in int8 only where its output, past a ReLU or ReLU6, is quantized. Mostly that is so
because the next layer's input is. It is not in front of a pool, an activation that no kernel absorbs, or a resize.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Node

from edgeopt.compress.normalize import BATCH_NORMS

__all__ = ["MAX_POOLS", "POOLS", "absorbed", "is_quantized_later", "is_spatial_pool"]

A = torch.ops.aten
POOLS = (
    *(A.mean.dim, A.avg_pool1d.default, A.avg_pool2d.default),
    *(A.adaptive_avg_pool1d.default, A.adaptive_avg_pool2d.default, A._adaptive_avg_pool2d.default),  # noqa: SLF001
)
MAX_POOLS = (A.max_pool1d.default, A.max_pool2d.default)
_RELUS = (A.relu.default, A.relu_.default, A.relu6.default, A.relu6_.default)
_CLIPS = (A.hardtanh.default, A.hardtanh_.default, A.clamp.default, A.clamp_.default)
# Quantizing before them is the same as behind them: they select values, and the graph's passes move Q past them.
_MOVES = (
    *(*MAX_POOLS, A.flatten.using_ints, A.view.default, A.reshape.default),
    *(A.permute.default, A.transpose.int, A.squeeze.dim, A.squeeze.dims, A.unsqueeze.default, A.slice.Tensor),
    *(A.cat.default, A.constant_pad_nd.default, A.pad.default, A.clone.default, A.contiguous.default),
    *(A.dropout.default, A.alias.default),
)


def absorbed(layer: Node) -> Node:
    """The last of the BatchNorm and ReLU or ReLU6 that follow ``layer`` alone; ``layer`` where none does."""
    end = layer
    while len(end.users) == 1:
        reader = next(iter(end.users))
        is_item = reader.target is operator.getitem and end.target in BATCH_NORMS and reader.args[1] == 0
        if not (reader.target in (*_RELUS, *BATCH_NORMS) or is_item or _starts_at_zero(reader)):
            break
        end = reader
    return end


def is_quantized_later(value: Node, is_quantized: Callable[[Node, Node], bool]) -> bool:
    """Whether ``value`` needs no Q of its own: every reader quantizes it, or it moves on to such readers or an output.

    Args:
        value: Any node.
        is_quantized: Of a reader and what it reads: whether it quantizes that input.
    """
    readers = list(value.users)
    if not readers or any(reader.op == "output" for reader in readers):
        return True  # what the graph returns stays as exact as it can be
    if all(is_quantized(reader, value) for reader in readers):
        return True
    # two readers of different kinds would end in two grids
    return len(readers) == 1 and readers[0].target in _MOVES and is_quantized_later(readers[0], is_quantized)


def is_spatial_pool(node: Node) -> bool:
    """Whether a node averages a [N, C, …] tensor over some or all of its spatial axes."""
    source = node.args[0] if node.args else None
    example = source.meta.get("val") if isinstance(source, Node) else None
    if node.target not in POOLS or not isinstance(example, torch.Tensor) or example.ndim not in (3, 4):
        return False
    if node.target != A.mean.dim:
        return True
    dims: Any = node.args[1] or ()
    return bool(dims) and all(dim % example.ndim >= 2 for dim in dims)


def _starts_at_zero(node: Node) -> bool:
    return node.target in _CLIPS and len(node.args) > 1 and bool(node.args[1] == 0)
