"""Whether sums of u8×s8 products fit in 16 bits: x86 before VNNI adds them in pairs, and saturates without a word.

VPMADDUBSW multiplies unsigned bytes by signed ones and adds two neighbours with signed saturation (Intel 64 and IA-32
Architectures Software Developer's Manual, volume 2, PMADDUBSW): a pair of weights (a, b) and inputs in [0, high] give at
most (max(a, 0) + max(b, 0))·high and at least (min(a, 0) + min(b, 0))·high. One product alone always fits (255·128 <
2^15), so only two weights of one sign can overflow, and both ends are reached: the verdict is exact over all inputs.

Which weights are neighbours, in ONNX Runtime's MLAS (AVX2, and AVX-512 without VNNI): the kernels read four
consecutive values of the reduced axis and multiply them as (0, 1), (2, 3). QGEMM packs four consecutive rows of B per column
(QgemmU8S8KernelAvx2.S, MlasGemmU8S8CopyPackBAvx2), its matrix-vector kernel likewise (QgemvU8S8KernelAvx2.S); panels along
K are multiples of four, and the last is filled with zeros. A convolution is such a product over (kernel position, channel of
the group), the channel running fastest: im2col in channels-last order (qlinearconv.cc, ReorderFilter); the direct kernel
takes four channels of one position (convsym.cpp, MlasConvSymPackW, only where the channels are a multiple of four), which
are the same pairs. Depthwise kernels multiply in 32 bits or pair each product with zero (ConvSymKernelAvx2.S, qdwconv.cpp,
ConvSymKernelAvx512Core.S), and u8×u8 in 16 bits before adding in 32 (QgemmU8X8KernelAvx2.S): both are exact.

In OpenVINO 2026.4 (AVX2; oneDNN, Developer Guide, "Nuances of int8 computations"): the same pairs, but its direct
convolution fills the channels of each kernel position up to a multiple of four with zeros, where its GEMM does not; and
depthwise kernels do not pair.

Under an emulated Haswell 17 forms of operators gave exactly the saturated sums of these pairs, on ONNX Runtime 1.32 and on
OpenVINO 2026.4.1 (tests/graph/test_graph_saturation_emulated.py). The emulator has no AVX-512: for that, there is only the
source, and only ONNX Runtime's was read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

__all__ = [
    "INT16_MAX",
    "INT16_MIN",
    "Layout",
    "PairSums",
    "Pairing",
    "Witness",
    "from_kernel_rows",
    "kernel_rows",
    "overflows",
    "pair_sums",
    "repair",
    "witnesses",
]

INT16_MIN, INT16_MAX = -(2**15), 2**15 - 1
Layout = Literal["conv", "columns", "rows"]
"""How a weight is stored: ``conv`` [M, C, …kernel], ``columns`` [K, N] as MatMul reads it, ``rows`` [N, K]."""
Pairing = Literal["neighbours", "any"]
"""Which weights may meet in a pair: neighbours at even positions, or, where a kernel's packing is not known, any two."""

_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the way to the step beside which no pair overflows


@dataclass(frozen=True, slots=True, kw_only=True)
class PairSums:
    """The extreme sums of two weights that meet, per output channel; int16 [channels].

    Attributes:
        largest: Of two that are not negative.
        smallest: Of two that are not positive.
    """

    largest: np.ndarray
    smallest: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """Two inputs that make one channel overflow, all others being zero.

    Attributes:
        channel: The output channel; ``positions``: of the two weights in its kernel row; ``weights``: their values.
        value: What both inputs are, as unsigned bytes.
        total: The exact sum of the two products, outside of 16 bits.
    """

    channel: int
    positions: tuple[int, int]
    weights: tuple[int, int]
    value: int
    total: int


def kernel_rows(weight: np.ndarray, layout: Layout, lanes: int = 1) -> np.ndarray:
    """The weights of each output channel in the order in which kernels read them: [channels, K], the dtype of ``weight``.

    Args:
        weight: In ``layout``.
        lanes: A convolution's channels are filled up with zeros to a multiple of this.
    """
    if layout == "conv":
        last = np.moveaxis(weight, 1, -1)
        wide = np.pad(last, [*[(0, 0)] * (last.ndim - 1), (0, -last.shape[-1] % lanes)]) if lanes > 1 else last
        return wide.reshape(weight.shape[0], -1)
    rows = np.swapaxes(weight, -1, -2) if layout == "columns" else weight
    return rows.reshape(-1, rows.shape[-1])


def from_kernel_rows(rows: np.ndarray, shape: tuple[int, ...], layout: Layout, lanes: int = 1) -> np.ndarray:
    """The weight of ``shape`` whose ``kernel_rows`` are ``rows``."""
    if layout == "conv":
        last = rows.reshape(shape[0], *shape[2:], -(-shape[1] // lanes) * lanes)[..., : shape[1]]
        return np.ascontiguousarray(np.moveaxis(last, -1, 1))
    if layout == "rows":
        return rows.reshape(shape)
    return np.ascontiguousarray(np.swapaxes(rows.reshape(*shape[:-2], shape[-1], shape[-2]), -1, -2))


def pair_sums(rows: np.ndarray, pairing: Pairing = "neighbours") -> PairSums:
    """The extreme sums over all pairs of ``rows``: int8 [channels, K]."""
    below = -np.minimum(rows, 0, dtype=np.int16)  # in 16 bits: -128 has no opposite in int8
    return PairSums(largest=_sums(np.maximum(rows, 0), pairing), smallest=-_sums(below, pairing))


def overflows(sums: PairSums, high: int) -> np.ndarray:
    """Which channels some input in [0, ``high``] makes overflow: bool [channels]."""
    over: np.ndarray = (sums.largest.astype(np.int64) * high > INT16_MAX) | (
        sums.smallest.astype(np.int64) * high < INT16_MIN
    )
    return over


def witnesses(rows: np.ndarray, high: int, pairing: Pairing = "neighbours") -> tuple[Witness, ...]:
    """One witness per channel that can overflow, its worst pair.

    Args:
        rows: int8 [channels, K].
        high: The largest input, an unsigned byte.
    """
    found = np.flatnonzero(overflows(pair_sums(rows, pairing), high))
    return tuple(_witness(rows[channel], int(channel), high, pairing) for channel in found)


def repair(rows: np.ndarray, high: int, pairing: Pairing = "neighbours") -> tuple[np.ndarray, np.ndarray]:
    """The nearest weights beside which no input overflows, for where the float weights are not at hand.

    A channel gets a wider step, or the weights of its overflowing pairs move towards zero, or some of both: whatever has
    the least squared error. Channels that cannot overflow stay as they are.

    Args:
        rows: int8 [channels, K].
        high: The largest input, an unsigned byte.

    Returns:
        int8 [channels, K]; and by how much each channel's step grew, float64 [channels], ≥ 1.
    """
    sums, factors, repaired = pair_sums(rows, pairing), np.ones(len(rows)), rows.copy()
    bad = np.flatnonzero(overflows(sums, high))
    if not bad.size:
        return repaired, factors
    up, down = INT16_MAX // high, -INT16_MIN // high
    wanted = rows[bad].astype(np.float32)
    # Two roundings add at most one to a pair's sum: a hundredth below the limit, it ends at the limit.
    need = np.maximum(sums.largest[bad] / (up - 0.01), -sums.smallest[bad].astype(np.int32) / (down - 0.01))
    least = np.full(len(bad), np.inf)
    for share in _SHARES if pairing == "neighbours" else _SHARES[-1:]:
        factor = (1 + (np.maximum(need, 1) - 1) * share).astype(np.float32)[:, None]
        steps = np.rint(wanted / factor)
        if pairing == "neighbours":
            steps = _inside(steps, up, down)
        error = np.square(steps * factor - wanted).sum(1)
        better = error < least
        least[better] = error[better]
        repaired[bad[better]] = steps[better].astype(np.int8)
        factors[bad[better]] = factor[better, 0]
    return repaired, factors


def _sums(magnitudes: np.ndarray, pairing: Pairing) -> np.ndarray:
    """The largest sum of two ``magnitudes`` [channels, K], ≥ 0, that meet: int16 [channels]."""
    k = magnitudes.shape[1]
    if k < 2:
        found: np.ndarray = magnitudes.sum(1, dtype=np.int16)
    elif pairing == "any":
        found = np.partition(magnitudes, k - 2, axis=1)[:, k - 2 :].sum(1, dtype=np.int16)
    else:
        even = k - k % 2
        found = np.add(magnitudes[:, 0:even:2], magnitudes[:, 1:even:2], dtype=np.int16).max(1)
        found = np.maximum(found, magnitudes[:, -1]) if k % 2 else found
    return found


def _witness(row: np.ndarray, channel: int, high: int, pairing: Pairing) -> Witness:
    weights, even = row.astype(np.int64), len(row) - len(row) % 2
    if pairing == "any":
        order = np.argsort(weights, kind="stable")
        pairs = [(int(order[-2]), int(order[-1])), (int(order[0]), int(order[1]))]
    else:
        sums = weights[0:even:2] + weights[1:even:2]
        pairs = [(2 * int(i), 2 * int(i) + 1) for i in (sums.argmax(), sums.argmin())]
    totals = [int(weights[list(pair)].sum()) * high for pair in pairs]
    worst = 0 if totals[0] > INT16_MAX and totals[0] - INT16_MAX >= INT16_MIN - totals[1] else 1
    first, second = pairs[worst]
    return Witness(
        channel=channel,
        positions=(min(first, second), max(first, second)),
        weights=(int(weights[min(first, second)]), int(weights[max(first, second)])),
        value=high,
        total=totals[worst],
    )


def _inside(steps: np.ndarray, up: int, down: int) -> np.ndarray:
    """``steps`` with each overflowing pair moved to the limit, its excess taken from both halves alike."""
    even = steps.shape[1] - steps.shape[1] % 2
    first, second = steps[:, 0:even:2], steps[:, 1:even:2]
    total = first + second
    excess = np.maximum(total - up, 0) + np.minimum(total + down, 0)
    excess[first * second <= 0] = 0  # of two signs: they cannot overflow
    half = np.trunc(excess / 2)
    # Neither half changes its sign: what one has too little of, the other gives.
    part = np.where(np.abs(half) > np.abs(first), first, half)
    rest = excess - part
    short = np.abs(rest) > np.abs(second)
    part = np.where(short, excess - second, part)
    inside = steps.copy()
    inside[:, 0:even:2] -= part
    inside[:, 1:even:2] -= excess - part
    return inside
