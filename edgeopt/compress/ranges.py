"""Which range of an activation int8 should cover: a histogram that streams, and three ways to read it.

NumPy only. A histogram's memory is constant, and what it holds depends on the values alone, never on how they were
cut into batches or in which order they came.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from edgeopt.core.grids import LEVELS, finer_grid, reach_of

__all__ = [
    "CLIPPED",
    "INT8_MAX",
    "INT8_MIN",
    "SCALE_FLOOR",
    "UINT8_MAX",
    "Histogram",
    "Observer",
    "best_range",
    "choose_range",
    "entropy_range",
    "grid_step",
    "shifted_ends",
    "symmetric_scale",
]

Observer = Literal["minmax", "percentile", "histogram", "entropy"]

# What ONNX's QuantizeLinear saturates at: any other limit is not bit-exact there.
INT8_MIN, INT8_MAX = -128, 127
UINT8_MAX = 255
SCALE_FLOOR = 2.0**-24  # the smallest positive float16: a constant-zero tensor's scale stays > 0 in every float type
_HALF = 4096  # bins on each side of zero: ≥ 16 of them lie within one int8 step of the whole range
_CANDIDATES, _REFINED = 96, 33  # clipping thresholds that ``best_range`` tries, then around the best
CLIPPED = 8.0  # by ``benchmarks/clipping.py``, on the tuning splits of nine nets
_SMALLEST_EXPONENT = -126  # 1/width must be a float32
_ENTROPY_BINS, _ENTROPY_FLOOR = 2048, 1e-9
_CHUNK = 1 << 16  # values binned at once: they stay in the cache, and memory is constant


class Histogram:
    """Counts of values in ``2 × 4096`` bins around zero, whose width is a power of two and doubles when needed.

    Bin ``i`` holds the values in ``[(i − 4096) · width, (i − 4095) · width)``. Because widths are powers of two, two
    neighbours merge exactly into one bin of the next width.

    Attributes:
        counts: int64 [8192].
        width: Of a bin; 0 before the first value that is not zero.
        low: The smallest value seen, ``high`` the largest; NaN before the first.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(2 * _HALF, np.int64)
        self.exponent: int | None = None
        self.zeros = 0
        self.low = self.high = math.nan

    @property
    def width(self) -> float:
        """The width of one bin."""
        return 0.0 if self.exponent is None else math.ldexp(1.0, self.exponent)

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum()) + self.zeros

    def widen(self, low: float, high: float) -> None:
        """Take note that values from ``low`` to ``high`` come next; must precede their ``add``."""
        self.low = low if math.isnan(self.low) else min(self.low, low)
        self.high = high if math.isnan(self.high) else max(self.high, high)
        largest = max(abs(low), abs(high))
        if largest == 0.0:
            return
        # frexp: largest = m · 2^e with m in [0.5, 1), so largest < 2^e = _HALF · width: the last bin is never passed.
        needed = max(math.frexp(largest)[1] - int(math.log2(_HALF)), _SMALLEST_EXPONENT)
        if self.exponent is None:
            self.exponent = needed
            self.counts[_HALF] += self.zeros
            self.zeros = 0
        while self.exponent < needed:
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts[:] = 0
            self.counts[_HALF // 2 : _HALF // 2 + _HALF] = merged
            self.exponent += 1

    def add(self, values: np.ndarray) -> None:
        """Count ``values``: float32 [N], finite, within what ``widen`` was told."""
        if self.exponent is None:
            self.zeros += values.size
            return
        per_bin = np.float32(1.0 / self.width)
        scaled, index = np.empty(_CHUNK, np.float32), np.empty(_CHUNK, np.int64)
        for start in range(0, values.size, _CHUNK):
            part = values[start : start + _CHUNK]
            bins, into = scaled[: part.size], index[: part.size]
            # Exact in float32: a power of two, then whole numbers below 2^13.
            np.multiply(part, per_bin, out=bins)
            np.floor(bins, out=bins)
            np.add(bins, np.float32(_HALF), out=bins)
            np.copyto(into, bins, casting="unsafe")
            self.counts += np.bincount(into, minlength=2 * _HALF)

    def edges(self) -> np.ndarray:
        """The bins' borders: float64 [8193]."""
        return np.arange(-_HALF, _HALF + 1) * self.width


def choose_range(
    histogram: Histogram, observer: Observer, percentile: float, clipped: float = CLIPPED, *, unsigned: bool = False
) -> tuple[float, float]:
    """The (low, high) that 8 bits should cover, within the values seen; ``low <= high``.

    Args:
        histogram: Not empty.
        observer: As in the recipe.
        percentile: In (50, 100]; for ``percentile`` only.
        clipped: For ``histogram`` only: see ``best_range``.
        unsigned: Whether the grid is that of uint8 from zero on, for values that are never negative; else symmetric int8.
    """
    if observer == "minmax" or histogram.width == 0.0:
        return histogram.low, histogram.high
    if observer == "percentile":
        return _percentile_range(histogram, percentile)
    ends = (0, UINT8_MAX) if unsigned else (INT8_MIN, INT8_MAX)
    return entropy_range(histogram, ends[1] + 1) if observer == "entropy" else best_range(histogram, clipped, ends)


def symmetric_scale(low: float, high: float, levels: int = INT8_MAX) -> float:
    """The step of a grid symmetric about zero that covers [low, high]: max(|low|, |high|) / levels.

    Rounded to float32, which is what every runtime stores: a float64 scale would be another number there.

    >>> symmetric_scale(-1.0, 254.0)
    2.0
    """
    return float(np.float32(max(abs(low), abs(high), SCALE_FLOOR * levels) / levels))


def shifted_ends(low: float, high: float) -> tuple[int, int]:
    """The smallest and the largest integer of the grid for [low, high], zero being 0: of uint8 where it pays, else of int8.

    What was not seen below zero stays int8: the exported graph may say that it never is, and a dialect then starts it there.

    >>> shifted_ends(-1.0, 15.0), shifted_ends(-10.0, 15.0)
    ((-30, 225), (-128, 127))
    """
    if low >= 0:
        return INT8_MIN, INT8_MAX
    step = symmetric_scale(low, high)
    found = finer_grid(*reach_of(low, high, step), step)
    return (INT8_MIN, INT8_MAX) if found is None else (-found[1], LEVELS - found[1])


def grid_step(low: float, high: float, ends: tuple[int, int]) -> float:
    """The step of a grid of these ends for [low, high], zero being the integer 0; float32.

    Of uint8 from zero on it reaches no further than ``high``: a runtime folds ReLU6 into Q only where Q's range lies inside
    [0, 6]. Of uint8 with a zero point it reaches a little further, as ``reach_of`` says.
    """
    if ends == (INT8_MIN, INT8_MAX):
        return symmetric_scale(low, high)
    if ends[0] == 0:
        step = symmetric_scale(low, high, UINT8_MAX)
        while step > SCALE_FLOOR and np.float32(step) * np.float32(UINT8_MAX) > np.float32(high):
            step = float(np.nextafter(np.float32(step), np.float32(0)))
        return step
    low, high = reach_of(low, high, symmetric_scale(low, high))
    # beyond the ends, half a step is within rounding; these two count where the range has moved and the ends have not
    return float(np.float32(max((high - low) / LEVELS, low / (ends[0] - 0.5), high / (ends[1] + 0.5), SCALE_FLOOR)))


def best_range(
    histogram: Histogram, clipped: float, ends: tuple[int, int] = (INT8_MIN, INT8_MAX)
) -> tuple[float, float]:
    """The range whose grid has the least squared error over the histogram, what is clipped weighing more.

    Error of a threshold T: Σ weight · count · (x − clip(round(x/s), −128, 127) · s)², s = T/127, x a bin's centre (for
    ``ends`` of 0 and 255 likewise); the noise inside the range (weight 1) and the clipping outside (weight ``clipped``) are both in it. From the largest
    magnitude down to a fiftieth of it. The grid searched is the one that is written, not the affine one (of which
    torchao's observer keeps half).

    Clipping weighs more because noise averages out in the products that read it, while what is clipped lies on one side, on
    the same few values of a sample; and a runtime's own grid is finer where a tensor does not use a symmetric one whole.
    """
    used = np.flatnonzero(histogram.counts)
    counts = histogram.counts[used].astype(np.float64)
    centres = (used - _HALF + 0.5) * histogram.width
    # The exact extremes are known; a centre must not lie beyond them.
    centres = np.clip(centres, histogram.low, histogram.high)
    largest = max(abs(histogram.low), abs(histogram.high))

    def error(threshold: float) -> float:
        scale = symmetric_scale(-threshold, threshold, ends[1])
        steps = np.clip(np.rint(centres / scale), *ends)
        squares = counts * (centres - steps * scale) ** 2
        below, above = np.searchsorted(centres, -threshold), np.searchsorted(centres, threshold, "right")
        return float(squares.sum() + (clipped - 1.0) * (squares[:below].sum() + squares[above:].sum()))

    coarse = [largest * float(share) for share in np.geomspace(1.0, 0.02, _CANDIDATES)]
    best = min(coarse, key=error)
    ratio = coarse[0] / coarse[1]
    fine = [t for t in (best * float(r) for r in np.geomspace(1 / ratio, ratio, _REFINED)) if t <= largest]
    best = min([best, *fine], key=error)
    return max(histogram.low, -best), min(histogram.high, best)


def entropy_range(histogram: Histogram, levels: int = INT8_MAX + 1) -> tuple[float, float]:
    """The range whose grid keeps the most of the distribution of magnitudes.

    For each threshold of ``levels`` or more bins of |x|: P is the histogram up to it, its last bin holding all that lies
    beyond; Q is the same histogram merged into ``levels`` levels and spread over those of its bins that are not empty. The threshold with
    the least KL(P‖Q) is taken. Source: S. Migacz, "8-bit Inference with TensorRT", GTC 2017, slides "Entropy
    Calibration"; as there, the histogram has 2,048 bins, and the bin of zero (and below one bin) is not counted.
    """
    magnitudes = histogram.counts[_HALF:] + histogram.counts[:_HALF][::-1]
    used = int(np.flatnonzero(magnitudes)[-1]) + 1
    merge = max(1, -(-used // _ENTROPY_BINS))
    counts = np.pad(magnitudes[:used], (0, -used % merge)).reshape(-1, merge).sum(1).astype(np.float64)
    counts[0] = 0.0
    if not counts.any():
        return histogram.low, histogram.high
    best, least = len(counts), math.inf
    for size in range(min(levels, len(counts)), len(counts) + 1):
        inside = counts[:size]
        p = inside.copy()
        p[-1] += counts[size:].sum()
        level = np.arange(size) * levels // size
        filled = inside > 0
        per_level = np.bincount(level, weights=inside, minlength=levels)
        members = np.bincount(level, weights=filled, minlength=levels)
        q = np.where(filled, per_level[level] / np.maximum(members[level], 1.0), 0.0)
        if not q.any():
            continue
        seen = p > 0
        # where P has mass and Q none (outliers moved into an empty last bin), the divergence is infinite: a small floor
        p, q = p / p.sum(), np.maximum(q / q.sum(), _ENTROPY_FLOOR)
        divergence = float((p[seen] * np.log(p[seen] / q[seen])).sum())
        if divergence < least:
            best, least = size, divergence
    threshold = best * merge * histogram.width
    return max(histogram.low, -threshold), min(histogram.high, threshold)


def _percentile_range(histogram: Histogram, percentile: float) -> tuple[float, float]:
    """Cut (100 − percentile)/2 per cent off each end, rounded outward to a bin's border: at least that share stays."""
    cut = histogram.total * (100.0 - percentile) / 200.0
    below = np.cumsum(histogram.counts)  # values at or below each bin
    above = np.cumsum(histogram.counts[::-1])[::-1]
    edges = histogram.edges()
    first = int(np.argmax(below > cut))
    last = 2 * _HALF - 1 - int(np.argmax(above[::-1] > cut))
    return max(histogram.low, float(edges[first])), min(histogram.high, float(edges[last + 1]))
