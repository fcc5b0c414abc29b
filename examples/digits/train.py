"""Train the shipped example: a small CNN on scikit-learn's real handwritten digits.

    python examples/digits/train.py

writes ``examples/digits/model.pt2`` (the exported program, dynamic batch) and ``calibration/digits/digits.npz``, and
puts the data's sha256 into ``calibration/digits.yaml``. Takes about a minute on two cores; needs ``edgeopt[examples]``.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its name everywhere

ROOT = Path(__file__).resolve().parents[2]
SEED, EPOCHS, BATCH = 0, 40, 50
CALIBRATION, TRAIN, TUNE = 300, 600, 97  # of 1,797; the model trains on the first two, the other 800 are the test


class Block(nn.Module):
    """Two convolutions with batch norm, and a residual add."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [N, C, H, W] to the same shape."""
        return F.relu(x + self.second(self.first(x)))


class DigitNet(nn.Module):
    """``x``: float32 [N, 1, 8, 8] in [0, 1] → logits [N, 10]."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv(1, width),
            Block(width),
            Block(width),
            nn.Conv2d(width, width, 3, stride=2, padding=1, groups=width, bias=False),  # depthwise
            nn.BatchNorm2d(width),
            nn.ReLU(),
            conv(width, 2 * width, kernel=1),
            nn.AdaptiveAvgPool2d(2),
        )
        self.classifier = nn.Linear(8 * width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images to logits."""
        return self.classifier(self.features(x).flatten(1))


def conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


def main() -> None:
    """Split, train, test, export."""
    parser = argparse.ArgumentParser(description="Train the digits example.")
    parser.add_argument("--root", type=Path, default=ROOT, help="where to write (default: this checkout)")
    root = parser.parse_args().root
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # the same sums in the same order, on any machine with this CPU's instructions
    torch.use_deterministic_algorithms(True)
    parts = split_digits()
    model = train(
        np.concatenate([parts["x_train"], parts["x_calibration"]]),
        np.concatenate([parts["y_train"], parts["y_calibration"]]),
    )
    print(
        f"{sum(p.numel() for p in model.parameters()):,} parameters, "
        f"{100 * accuracy(model, parts['x'], parts['y']):.2f} % of {len(parts['x'])} test digits right"
    )
    export(model, torch.from_numpy(parts["x_calibration"]), root / "examples/digits/model.pt2")
    store(parts, root / "calibration/digits/digits.npz", root / "calibration/digits.yaml")


def split_digits() -> dict[str, np.ndarray]:
    """Split at random, stratified by digit: x, y (test), and train, calibration, tune."""
    digits = load_digits()
    left_x = (digits.images[:, None] / 16).astype(np.float32)
    left_y = digits.target.astype(np.int64)
    parts = {}
    for name, size in (("calibration", CALIBRATION), ("train", TRAIN), ("tune", TUNE)):
        parts[f"x_{name}"], left_x, parts[f"y_{name}"], left_y = train_test_split(
            left_x, left_y, train_size=size, stratify=left_y, random_state=SEED
        )
    return {"x": left_x, "y": left_y, **parts}


def train(x: np.ndarray, y: np.ndarray) -> nn.Module:
    """Train on all of ``x`` with random shifts of up to one pixel."""
    images, labels = torch.from_numpy(x), torch.from_numpy(y)
    model = DigitNet()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.02)
    steps = -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=EPOCHS * steps)
    for _ in range(EPOCHS):
        for picked in torch.randperm(len(images)).split(BATCH):
            down, right = torch.randint(-1, 2, (2,)).tolist()
            shifted = F.pad(images[picked], (1, 1, 1, 1))[..., 1 + down : 9 + down, 1 + right : 9 + right]
            loss = F.cross_entropy(model(shifted), labels[picked], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def accuracy(model: nn.Module, x: np.ndarray, y: np.ndarray) -> float:
    """Share of right predictions."""
    with torch.no_grad():
        return float((model(torch.from_numpy(x)).argmax(1).numpy() == y).mean())


def export(model: nn.Module, samples: torch.Tensor, path: Path) -> None:
    """Write the program with a dynamic batch. The example input is cloned: a slice would carry the whole data set."""
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(model, (samples[:4].clone(),), dynamic_shapes=({0: batch},))
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.export.save(program, path)
    print(f"{path}: {path.stat().st_size / 1024:.0f} KiB")


def store(parts: dict[str, np.ndarray], data: Path, manifest: Path) -> None:
    """Write the splits, and their file's sha256 into the manifest."""
    data.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(data, **parts)
    print(f"{data}: {data.stat().st_size / 1024:.0f} KiB")
    if manifest.is_file():
        digest = hashlib.sha256(data.read_bytes()).hexdigest()
        pinned = re.sub(r'sha256: "[0-9a-f]+"', f'sha256: "{digest}"', manifest.read_text(encoding="utf-8"))
        manifest.write_text(pinned, encoding="utf-8")


if __name__ == "__main__":
    main()
