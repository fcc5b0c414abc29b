"""What a convolution or a linear layer multiplies its weight with, as rows of a matrix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch.fx import Node
from torch.nn import functional as F  # noqa: N812 - its name everywhere

__all__ = ["patches", "weight_matrix"]

A = torch.ops.aten


def weight_matrix(node: Node, weight: torch.Tensor) -> torch.Tensor:
    """A layer's weight as [G, O, K]: groups, output channels per group, terms per sum."""
    groups = _option(node, 6, "groups", 1) if node.target is not A.linear.default else 1
    return weight.reshape(groups, weight.shape[0] // groups, -1)


def patches(node: Node, x: torch.Tensor, weight: torch.Tensor) -> Iterator[torch.Tensor]:
    """One sample at a time: the rows that ``weight_matrix`` is multiplied with.

    Args:
        node: A conv1d, conv2d or linear call.
        x: Its input, float32 [N, …].
        weight: Its weight, for the kernel's size.

    Yields:
        float32 [G, R, K]: R output positions of one sample.
    """
    if node.target is A.linear.default:
        for sample in x if x.ndim > 1 else x[None]:
            yield sample.reshape(1, -1, x.shape[-1])
        return
    spatial = weight.ndim - 2
    kernel = tuple(weight.shape[2:])
    stride, dilation = (_spread(_option(node, i, n, 1), spatial) for i, n in ((3, "stride"), (5, "dilation")))
    groups = _option(node, 6, "groups", 1)
    padding = _padding(_option(node, 4, "padding", 0), kernel, dilation)
    for sample in x:
        padded = F.pad(sample[None], padding)
        if spatial == 1:  # unfold takes images
            columns = F.unfold(padded[:, :, None], (1, *kernel), (1, *dilation), 0, (1, *stride))
        else:
            columns = F.unfold(padded, kernel, dilation, 0, stride)
        yield columns[0].reshape(groups, -1, columns.shape[-1]).transpose(1, 2)


def _option(node: Node, position: int, name: str, default: Any) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def _spread(value: Any, count: int) -> tuple[int, ...]:
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return values * count if len(values) == 1 else values


def _padding(value: Any, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[int, ...]:
    """As ``F.pad`` takes it: last axis first, before and after."""
    pairs = []
    for axis, (taps, spacing) in enumerate(zip(kernel, dilation, strict=True)):
        if value == "same":
            total = spacing * (taps - 1)
            pairs.append((total // 2, total - total // 2))
        else:
            amount = 0 if value == "valid" else _spread(value, len(kernel))[axis]
            pairs.append((amount, amount))
    return tuple(amount for pair in reversed(pairs) for amount in pair)
