"""Properties of samples by which a test split is told apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["SliceColumn"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceColumn:
    """A property of the samples by which they are told apart: the class, the camera, the lighting.

    Attributes:
        codes: int32 [N], index into ``values``; -1 where the sample has none.
        values: What the property may be.
    """

    codes: np.ndarray
    values: tuple[str, ...]
