"""The smallest weight scale beside which no sum of two u8×s8 products leaves 16 bits: for x86 without VNNI.

Two weights that a kernel adds before it widens to 32 bits must not sum to more than 128 (255·128 < 2^15): which ones meet
is told in ``edgeopt.core.saturation``. A channel whose scale is chosen so loses what its worst pair asks for, 1.2 to 2.4 dB
of its weights' SQNR where they are normal or Laplacian; a bit less everywhere costs 6. That holds for weights that are
rounded to the nearest; what another method chose is
set to the nearest where it would pass the limit, and the dialect has the last word.
"""

from __future__ import annotations

import math

import torch

__all__ = ["meets_in_pairs", "pair_floor", "settle"]

_LIMIT = 128
_HEADROOM = 2.0**-10  # two roundings add at most one: below the limit by this, a sum ends at the limit at most
_LANES = 4  # a convolution's channels may be filled up to a multiple of four, which moves the pairs


def meets_in_pairs(shape: torch.Size, groups: int) -> bool:
    """Whether kernels add products of this weight in pairs: all but those of depthwise convolutions do.

    Args:
        shape: [M, C / groups, …] of a convolution, or [N, K].
        groups: Of the convolution; 1 otherwise.
    """
    return not (len(shape) > 2 and shape[1] == 1 and shape[0] == groups)


def pair_floor(weight: torch.Tensor, *, per_channel: bool) -> torch.Tensor:
    """The scale's lower limit: float32 [M], or a scalar for one scale.

    Args:
        weight: float32 [M, C, …] or [N, K].
        per_channel: One scale per index of axis 0, else one for all.
    """
    rows = _rows(weight.detach().double())
    worst = torch.stack([_sums(rows, pairs).amax(1) for pairs in _pairs(weight.shape)]).amax(0)
    floor = (worst / (_LIMIT - _HEADROOM)).float()
    return floor if per_channel else floor.max()


def settle(chosen: torch.Tensor, nearest: torch.Tensor) -> torch.Tensor:
    """Integers that were not rounded to the nearest, with the nearest where they would overflow beside another.

    Args:
        chosen: int8 [M, C, …] or [N, K].
        nearest: Likewise, on a scale of at least ``pair_floor``: no pair of them overflows.
    """
    settled, fallback = (_rows(values.int()) for values in (chosen, nearest))
    while True:
        is_over = torch.zeros_like(settled, dtype=torch.bool)
        for pairs in _pairs(chosen.shape):
            over = _sums(settled, pairs) > _LIMIT
            for column in (0, 1):
                is_over[:, pairs[:, column]] |= over
        is_over &= settled != fallback
        if not bool(is_over.any()):
            return settled[:, :-1].to(chosen.dtype).reshape(chosen.shape)
        settled = torch.where(is_over, fallback, settled)


def _rows(weight: torch.Tensor) -> torch.Tensor:
    """[M, K + 1]: the weights as they are stored, and a zero for what is filled up."""
    return torch.nn.functional.pad(weight.flatten(1), [0, 1])


def _sums(rows: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    """The magnitude of the sum of each pair's weights of one sign: [M, pairs]."""
    met = rows[:, pairs]
    return torch.maximum(met.clamp_min(0).sum(-1), met.clamp_max(0).sum(-1).neg())


def _pairs(shape: torch.Size) -> list[torch.Tensor]:
    """Which weights of a channel may meet, int64 [pairs, 2] each; -1 is the zero behind them all.

    In the order of a convolution's channels as they are, and with channels filled up.
    """
    index = torch.arange(math.prod(shape[1:])).reshape(shape[1:])
    last = index.movedim(0, -1)
    orders = [last]
    if len(shape) > 2 and shape[1] % _LANES:
        orders.append(torch.nn.functional.pad(last, [0, -shape[1] % _LANES], value=-1))
    return [
        torch.nn.functional.pad(flat, [0, len(flat) % 2], value=-1).reshape(-1, 2)
        for flat in (order.flatten() for order in orders)
    ]
