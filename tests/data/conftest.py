from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from edgeopt.core.spec import TensorSpec


@pytest.fixture
def image_input() -> TensorSpec:
    return TensorSpec(name="x", dtype="float32", shape=("batch", 3, 8, 8))


@pytest.fixture
def vector_input() -> TensorSpec:
    return TensorSpec(name="x", dtype="float32", shape=("batch", 4))


@pytest.fixture
def three_classes() -> TensorSpec:
    return TensorSpec(name="logits", dtype="float32", shape=("batch", 3))


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    """x: float32 [60, 4]; y: int64 [60] in 0, 1, 2, twenty each."""
    random = np.random.default_rng(7)
    return {"x": random.normal(size=(60, 4)).astype(np.float32), "y": np.arange(60) % 3}


@pytest.fixture
def write_manifest(tmp_path: Path):
    """Write a manifest with the given keys over a minimal one; returns its path."""

    def write(path: Path | None = None, **keys: Any) -> Path:
        path = path or tmp_path / "set.yaml"
        content = {"schema_version": 1, "name": "set", "task": "classification", **keys}
        path.write_text(yaml.safe_dump(content))
        return path

    return write


@pytest.fixture
def image_folder(tmp_path: Path):
    """Make ``count`` noisy PNGs of (height, width) per class folder; returns the folder."""

    def make(folder: str = "photos", classes: str = "abc", count: int = 6, size: tuple[int, int] = (8, 8)) -> Path:
        random = np.random.default_rng(zlib.crc32(folder.encode()))
        for name in classes:
            (tmp_path / folder / name).mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(0, 256, (*size, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / folder / name / f"{index}.png")
        return tmp_path / folder

    return make


@pytest.fixture
def image_preprocessing() -> dict[str, Any]:
    return {"mode": "RGB", "layout": "NCHW", "scale": "1/255"}
