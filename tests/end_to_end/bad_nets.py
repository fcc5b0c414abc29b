"""Nets that cases of bad input name as factories."""

from __future__ import annotations

import torch
from torch import nn


class Branches(nn.Module):
    """What torch.export cannot take."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(20, 2)

    def forward(self, x):
        if x.sum() > 0:  # the offending line
            return self.head(x)
        return -self.head(x)


class Logarithm(nn.Module):
    """Not a number wherever the first value is below the limit."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.head, self.limit = nn.Linear(20, 2), limit

    def forward(self, x):
        return self.head(x) + torch.log(x[:, :1] - self.limit)


def small(width: int = 8) -> nn.Module:
    return nn.Sequential(nn.Linear(20, width), nn.ReLU(), nn.Linear(width, 2))


def branches() -> nn.Module:
    return Branches()


def vector_loss(outputs: tuple[torch.Tensor, ...], labels: torch.Tensor) -> torch.Tensor:
    """No scalar."""
    return outputs[0] - labels[:, None]


def nan_loss(outputs: tuple[torch.Tensor, ...], labels: torch.Tensor) -> torch.Tensor:
    """No number."""
    return outputs[0].mean() * float("nan")
