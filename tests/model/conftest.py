"""Small nets, and an archive to tamper with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile
import pytest
import torch
from model_nets import Mlp, seeded
from torch import nn


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
