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


def write_regression(folder: Path, samples: int = 400) -> None:
    """``net.pt2``, ``data.npz`` and ``data.yaml``: the targets are the net's own answers and a little noise."""
    rng, net = np.random.default_rng(0), _seeded(Regressor)
    x = rng.normal(size=(samples, 6)).astype(np.float32)
    y = _answers(net, x) + rng.normal(0, 0.05, (samples, 2)).astype(np.float32)
    np.savez(folder / "data.npz", x=x, y=y)
    _write(folder, net, x, task="regression")


def write_segmentation(folder: Path, samples: int = 120) -> None:
    """Likewise; masks with 255 at the border, which is not counted, and a column ``lighting``."""
    rng, net = np.random.default_rng(0), _seeded(Segmenter)
    x = rng.normal(size=(samples, 3, SIDE, SIDE)).astype(np.float32)
    y = _answers(net, x + rng.normal(0, 0.1, x.shape).astype(np.float32)).argmax(1).astype(np.uint8)
    y[:, 0] = y[:, -1] = 255
    np.savez(folder / "data.npz", x=x, y=y)
    _write(folder, net, x, task="segmentation", ignore_index=255, classes=["road", "car", "sky"])


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
    shapes = {0: torch.export.Dim("batch", min=1, max=1024)}
    program = torch.export.export(net, (torch.from_numpy(x[:2]),), dynamic_shapes=(({0: shapes[0]}),))
    torch.export.save(program, folder / "net.pt2")
