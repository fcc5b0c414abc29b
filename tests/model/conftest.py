"""Archives, made hostile in one place each."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


Edit = Callable[[dict[str, bytes]], None]


@pytest.fixture
def tampered(archive: Path, tmp_path: Path) -> Callable[[Edit], Path]:
    """Rewrite the archive's members."""

    def tamper(edit: Edit) -> Path:
        with zipfile.ZipFile(archive) as old:
            members = {name.split("/", 1)[1]: old.read(name) for name in old.namelist()}
        edit(members)
        path = tmp_path / "hostile.pt2"
        with zipfile.ZipFile(path, "w") as new:
            for name, content in members.items():
                new.writestr(f"hostile/{name}", content)
        return path

    return tamper


@pytest.fixture
def with_program(tampered: Callable[[Edit], Path]) -> Callable[[Callable[[dict[str, Any]], None]], Path]:
    """Rewrite the archive's program."""

    def tamper(edit: Callable[[dict[str, Any]], None]) -> Path:
        def members(files: dict[str, bytes]) -> None:
            program = json.loads(files["models/model.json"])
            edit(program)
            files["models/model.json"] = json.dumps(program).encode()

        return tampered(members)

    return tamper
