"""Small nets, and an archive to tamper with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile
import pytest
import torch
from torch import nn


class Mlp(nn.Module):
    """A first-time user's classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2))

    def forward(self, x):
        return self.body(x)


class ConvNet(nn.Module):
    """Batch norm, dropout, and a reshape that writes the batch down."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)
        self.head = nn.Linear(4 * 36, 3)

    def forward(self, image):
        y = torch.relu(self.norm(self.conv(image)))
        return self.head(self.drop(y.view(image.size(0), -1)))


class Sequences(nn.Module):
    """A class token, attention over heads, and a recurrent state: four ways to write a batch down."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.qkv, self.rnn, self.head = nn.Linear(8, 24), nn.GRU(8, 8, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        b, t, c = x.shape
        x = torch.cat([self.token.expand(b, -1, -1), x], 1)
        q, k, v = self.qkv(x).reshape(b, t + 1, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        y = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        y, _ = self.rnn(y.transpose(1, 2).reshape(b, t + 1, c))
        return self.head(y[:, 0])


class TwoInputs(nn.Module):
    """Token ids beside features."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(11, 6), nn.Linear(6 + 3, 2)

    def forward(self, ids, features):
        return {"logits": self.head(torch.cat([self.table(ids).mean(1), features], 1)), "pooled": (features.sum(1),)}


class MixesRows(nn.Module):
    """Its rows depend on each other: no batch size is like another."""

    def forward(self, x):
        return x - x.mean(0, keepdim=True)


class HardCoded(nn.Module):
    """Fits one batch size only."""

    def forward(self, x):
        return x.view(4, 16) + torch.arange(4.0).view(4, 1)


class Branches(nn.Module):
    """What torch.export cannot take."""

    def forward(self, x):
        if x.sum() > 0:  # the offending line
            return x
        return -x


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    module = make()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):  # as after training
            part.running_mean.normal_(0, 0.5)
            part.running_var.uniform_(0.5, 2)
    return module.eval()


def make_mlp(hidden: int = 64, name: str = "mlp") -> nn.Module:
    """A factory, as --factory names one."""
    assert name == "mlp"
    module = Mlp()
    if hidden != 64:
        module.body[0] = nn.Linear(20, hidden)
    return module


def make_nothing() -> str:
    return "no module"


@pytest.fixture
def mlp() -> nn.Module:
    return seeded(Mlp)


@pytest.fixture
def archive(tmp_path: Path, mlp: nn.Module) -> Path:
    """The usual first-time user's file: exported with one example."""
    path = tmp_path / "model.pt2"
    torch.export.save(torch.export.export(mlp, (torch.randn(1, 20),)), path)
    return path


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """What a hostile payload would create."""
    return tmp_path / "executed"


@pytest.fixture
def tampered(archive: Path, tmp_path: Path) -> Callable[[hostile.Edit], Path]:
    """Rewrite the archive's members."""
    return lambda edit: hostile.tampered(archive, tmp_path / "hostile.pt2", edit)


@pytest.fixture
def with_program(tampered: Callable[[hostile.Edit], Path]) -> Callable[[Callable[[dict[str, Any]], None]], Path]:
    """Rewrite the archive's program."""
    return lambda edit: tampered(hostile.of_program(edit))
