"""A small residual net that can be pruned, and data that it was trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch


class Residual(torch.nn.Module):
    """Two convolutions of 16 and 32 channels, a residual block of 32, a linear layer; 1×8×8 to four classes."""

    def __init__(self) -> None:
        super().__init__()
        sizes = ((1, 16, 1), (16, 32, 2), (32, 32, 1), (32, 32, 1))
        self.convs = torch.nn.ModuleList(
            torch.nn.Conv2d(i, o, 3, stride=stride, padding=1, bias=False) for i, o, stride in sizes
        )
        self.norms = torch.nn.ModuleList(torch.nn.BatchNorm2d(o) for _, o, _ in sizes)
        self.head = torch.nn.Linear(32, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits."""
        for conv, norm in zip(self.convs[:2], self.norms[:2], strict=True):
            x = torch.relu(norm(conv(x)))
        inner = torch.relu(self.norms[2](self.convs[2](x)))
        x = torch.relu(x + self.norms[3](self.convs[3](inner)))
        logits: torch.Tensor = self.head(x.mean((2, 3)))
        return logits


def _samples(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """In which quarter the stripes are, under noise."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, count)
    x = (0.8 * rng.standard_normal((count, 1, 8, 8))).astype(np.float32)
    stripes = np.tile(np.array([0.9, -0.5], np.float32), (4, 2))
    for image, label in zip(x, y, strict=True):
        top, left = 4 * (label // 2), 4 * (label % 2)
        image[0, top : top + 4, left : left + 4] += stripes
    return x, y.astype(np.int64)


def write_residual(folder: Path) -> None:
    """``residual.pt2`` with a dynamic batch, and ``residual.npz`` with a train split."""
    x, y = _samples(1600, 1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Residual()
        optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
        for _ in range(4):
            for start in range(0, len(x), 64):
                logits = net(torch.from_numpy(x[start : start + 64]))
                loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(y[start : start + 64]))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(net.eval(), (torch.zeros(2, 1, 8, 8),), dynamic_shapes=(batch,))
    torch.export.save(program, folder / "residual.pt2")
    test, labels = _samples(1000, 2)
    np.savez(folder / "residual.npz", x=test, y=labels, x_train=x, y_train=y, x_calibration=x[:128])
