"""Small pictures of samples, for the report."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np

from edgeopt.bundle.document import FlipRow
from edgeopt.data.contract import Dataset, InputContract

__all__ = ["with_pictures"]

_MOST = 60
_SIDE = 64


def with_pictures(rows: Sequence[FlipRow], data: Dataset) -> tuple[FlipRow, ...]:
    """The rows, the first sixty with a picture of their sample where the model's only input is an image."""
    if not rows or len(data.contracts) > 1:
        return tuple(rows)
    source = data.splits["test"].source
    made = []
    for row in rows[:_MOST]:
        picture = _png(source.read([row.index]).inputs[0][0], data.contract)
        if picture is None:
            return tuple(rows)
        made.append(row.model_copy(update={"picture": picture}))
    return (*made, *rows[_MOST:])


def _png(array: np.ndarray, contract: InputContract) -> str | None:
    """A PNG as a data URI, at most 64 pixels a side; None where the array [C, H, W] or [H, W, C] is no image."""
    from PIL import Image

    if array.ndim != 3:
        return None
    image = array if contract.layout == "NHWC" else np.moveaxis(array, 0, -1)
    if image.shape[-1] not in (1, 3) or min(image.shape[:2]) < 4:
        return None
    raw = image.dtype == np.uint8
    image = image.astype(np.float64) / (255 if raw else 1)
    if contract.mean and contract.std and not raw:
        image = image * np.asarray(contract.std) + np.asarray(contract.mean)
    low, high = image.min(), image.max()
    if low < -0.01 or high > 1.01:  # not in [0, 1] even so: spread what is there
        image = (image - low) / max(high - low, 1e-12)
    pixels = np.clip(np.rint(255 * image), 0, 255).astype(np.uint8)
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    picture.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
