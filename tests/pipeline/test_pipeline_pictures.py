from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from edgeopt.bundle.accuracy import FlipRow
from edgeopt.data.contract import Batch, Dataset, InputContract, Split
from edgeopt.pipeline.pictures import with_pictures


class Images:
    """A source whose sample i is ``arrays[i]``."""

    def __init__(self, arrays):
        self.arrays = arrays

    def read(self, indices):
        return Batch(inputs=(self.arrays[list(indices)],), targets=None)


def pictured(arrays, contract, count=1):
    split = Split(name="test", source=Images(arrays), indices=np.arange(len(arrays)), how="made", fingerprint="0")
    data = Dataset(
        name="made", task="classification", splits={"test": split}, fingerprint="0", contract=contract,
        contracts={"x": contract},
    )  # fmt: skip
    rows = [FlipRow(index=0, label="a", reference="a", candidate="b", margin=0.5)] * count
    return with_pictures(rows, data)


def pixels(row):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(row.picture.partition(",")[2]))))


def test_a_normalized_image_looks_as_it_was_before():
    rng = np.random.default_rng(0)
    shown = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    array = np.moveaxis((shown / 255 - np.array(mean)) / np.array(std), -1, 0)[None].astype(np.float32)
    (row,) = pictured(array, InputContract(layout="NCHW", mean=mean, std=std))
    assert np.array_equal(pixels(row), shown)


def test_raw_pixels_are_shown_as_they_are():
    shown = np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1)
    (row,) = pictured(shown, InputContract(layout="NHWC", mean=(0.5,), std=(0.1,)))
    assert np.array_equal(pixels(row), shown[0, ..., 0])


def test_large_images_are_made_small_and_only_the_first_sixty_are_shown():
    rows = pictured(np.zeros((1, 3, 300, 200), np.float32), InputContract(), count=70)
    assert max(pixels(rows[0]).shape[:2]) == 64
    assert sum(row.picture is not None for row in rows) == 60
    assert len(rows) == 70


@pytest.mark.parametrize("shape", [(1, 20), (1, 5, 8, 8), (1, 3, 2, 2)])
def test_what_is_no_image_has_no_picture(shape):
    (row,) = pictured(np.zeros(shape, np.float32), InputContract())
    assert row.picture is None
