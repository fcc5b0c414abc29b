"""Where a training stands, on disk: written beside its name and renamed, so that a killed run leaves a whole one."""

from __future__ import annotations

import os
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

__all__ = ["Checkpoint", "load_checkpoint", "save_checkpoint"]

_NAME, _VERSION = "checkpoint.pt", 1


@dataclass(kw_only=True)
class Checkpoint:
    """Everything that the rest of a training depends on. The order of the data follows from seed, epoch and step.

    Attributes:
        epoch: The epoch that comes next, or is under way.
        step: How many steps of it are done.
        student: Parameters and buffers.
        optimizer: Its state.
        best: Parameters and buffers of the best epoch so far.
        curve: One row per epoch so far, JSON values.
        loss_sum: Of the epoch under way.
        spent_s: Time spent on training, seconds, over all runs.
    """

    epoch: int
    step: int
    student: dict[str, torch.Tensor]
    optimizer: dict[str, Any]
    best: dict[str, torch.Tensor]
    curve: list[dict[str, Any]] = field(default_factory=list)
    loss_sum: float = 0.0
    spent_s: float = 0.0


def save_checkpoint(folder: Path, state: Checkpoint) -> None:
    """Replace the folder's checkpoint by ``state`` and the generators' states."""
    folder.mkdir(parents=True, exist_ok=True)
    name, keys, position, has_gauss, gauss = cast("tuple[str, np.ndarray, int, int, float]", np.random.get_state())  # noqa: NPY002  what libraries may use
    content = {
        "version": _VERSION,
        **state.__dict__,
        "torch": torch.get_rng_state(),
        "numpy": (name, torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(gauss)),
        "python": random.getstate(),
    }
    partial = folder / f".{_NAME}-{os.getpid()}"
    with partial.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / _NAME)


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The folder's checkpoint, and the generators set to its states; None where there is none that can be read."""
    path = folder / _NAME
    if not path.is_file():
        return None
    content = torch.load(path, map_location="cpu", weights_only=True)
    if content.pop("version") != _VERSION:
        return None
    torch.set_rng_state(content.pop("torch"))
    name, keys, position, has_gauss, gauss = content.pop("numpy")
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    random.setstate(content.pop("python"))
    return Checkpoint(**content)
