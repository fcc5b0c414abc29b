"""When a signed tensor is worth a zero point: calibration and dialects must decide alike.

A symmetric grid of step s reaches from -128·s to 127·s. A tensor of which little lies on one side of zero (behind PReLU,
GELU, hard swish; an image) uses it half. A grid of 255 steps over what is used is finer; where its zero lies is its zero
point, which puts zero on a point exactly.
"""

from __future__ import annotations

import numpy as np

__all__ = ["LEVELS", "finer_grid", "reach_of"]

LEVELS = 255
_MARGIN = 1 / 16  # of the seen span, on each side: unseen data reach a little further
_WORTH = 0.75  # symmetric head-room is given up only for a step that is this much finer (2.5 dB)


def reach_of(low: float, high: float, step: float) -> tuple[float, float]:
    """What a grid must reach for values seen from ``low`` to ``high``, if a symmetric one of ``step`` is not to be left.

    >>> reach_of(-1.0, 15.0, 0.125)
    (-2.0, 15.9375)
    """
    margin = _MARGIN * (max(high, 0.0) - min(low, 0.0))
    # what the symmetric grid represents within half a step; calibration may have clipped more than that on purpose
    return max(-128.5 * step, low - margin), min(127.5 * step, high + margin)


def finer_grid(low: float, high: float, step: float) -> tuple[np.float32, int] | None:
    """Step and zero point of the uint8 grid over [low, high], zero included.

    Args:
        step: Of the symmetric grid that the tensor has.

    Returns:
        None where the step would not be much finer than ``step``.

    >>> finer_grid(-2.0, 15.9375, 0.125)
    (np.float32(0.07034314), 28)
    """
    low, high = min(low, 0.0), max(high, 0.0)
    if high - low > _WORTH * LEVELS * step:
        return None
    scale = np.float32((high - low) / LEVELS)
    return (scale, round(-low / float(scale))) if scale > np.finfo(np.float32).tiny else None
