"""Small nets whose targets a better net made: a regression and a segmentation, ready to compile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import yaml
from torch import nn

SIDE, CLASSES = 12, 3


class Regressor(nn.Module):
    """Two numbers per sample of six features."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


class Segmenter(nn.Module):
    """Scores [N, classes, H, W] at the input's size."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, CLASSES, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


class Spotter(nn.Module):
    """How bright each pixel is, as scores [N, H, W] between 0 and 1."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(1, 1, 1)
        with torch.no_grad():
            self.body.weight.fill_(4.0)
            self.body.bias.fill_(-2.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.body(x))[:, 0]


DECODER = """
import numpy as np

def decode(outputs):
    (grid,) = outputs.values()
    found = np.zeros((len(grid), 4, 6), np.float32)
    for scores, rows in zip(grid, found):
        for place, index in enumerate(np.argsort(-scores, axis=None)[:4]):
            y, x = np.unravel_index(index, scores.shape)
            rows[place] = x, y, x + 1, y + 1, scores[y, x] if scores[y, x] > 0.5 else 0, 0
    return found
"""


def write_regression(folder: Path, samples: int = 400, *, spoilt: bool = False) -> None:
    """``net.pt2``, ``data.npz`` and ``data.yaml``: the targets are the net's own answers and a little noise.

    Where ``spoilt``, the net in the file is the good one with its last layer shaken, so that there is something to learn.
    """
    rng, net = np.random.default_rng(0), _seeded(Regressor)
    x = rng.normal(size=(samples, 6)).astype(np.float32)
    y = _answers(net, x) + rng.normal(0, 0.02, (samples, 2)).astype(np.float32)
    np.savez(folder / "data.npz", x=x, y=y)
    if spoilt:
        with torch.no_grad():
            net.body[2].bias += 0.06
    _write(folder, net, x, task="regression", splits={"train": 0.5})


def write_segmentation(folder: Path, samples: int = 120) -> None:
    """Likewise; masks with 255 at the border, which is not counted, and a column ``lighting``."""
    rng, net = np.random.default_rng(0), _seeded(Segmenter)
    x = rng.normal(size=(samples, 3, SIDE, SIDE)).astype(np.float32)
    y = _answers(net, x + rng.normal(0, 0.1, x.shape).astype(np.float32)).argmax(1).astype(np.uint8)
    y[:, 0] = y[:, -1] = 255
    light = np.array(["day", "night"])[rng.integers(0, 2, samples)]
    np.savez(folder / "data.npz", x=x, y=y, lighting=light)
    _write(folder, net, x, task="segmentation", ignore_index=255, classes=["road", "car", "sky"], columns=["lighting"])


def write_detection(folder: Path, samples: int = 60) -> None:
    """Likewise, with ``grid_decoder.py``: the net answers with a bright pixel's cell, the decoder makes it a box."""
    rng, net = np.random.default_rng(0), _seeded(Spotter)
    x = np.zeros((samples, 1, SIDE, SIDE), np.float32)
    y = np.zeros((samples, 1, 5), np.float32)
    for index, (row, column) in enumerate(rng.integers(0, SIDE, (samples, 2))):
        x[index, 0, row, column] = 1 + rng.random()
        y[index, 0, 1:] = [column, row, column + 1, row + 1]
    np.savez(folder / "data.npz", x=x, y=y)
    (folder / "grid_decoder.py").write_text(DECODER)
    _write(folder, net, x, task="detection", classes=["spot"], decoder="grid_decoder:decode", metrics=["map_50_95"])


def _seeded(kind: type[nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind().eval()


@torch.no_grad()
def _answers(net: nn.Module, x: np.ndarray) -> np.ndarray:
    return net(torch.from_numpy(x)).numpy()


def _write(folder: Path, net: nn.Module, x: np.ndarray, **keys: object) -> None:
    content = {"schema_version": 1, "name": "made", "source": {"npz": "data.npz"}, **keys}
    (folder / "data.yaml").write_text(yaml.safe_dump(content))
    batch = torch.export.Dim("batch", min=1, max=1024)
    program = torch.export.export(net, (torch.from_numpy(x[:2]),), dynamic_shapes=({0: batch},))
    torch.export.save(program, folder / "net.pt2")
