"""The smallest weight scale beside which no sum of two u8×s8 products leaves 16 bits: for x86 without VNNI.

Two weights that a kernel adds before it widens to 32 bits must not sum to more than 128 (255·128 < 2^15): which ones meet
is told in ``edgeopt.core.saturation``. A channel whose scale is chosen so loses what its worst pair asks for, 1.2 to 2.4 dB
of its weights' SQNR where they are normal or Laplacian; a bit less everywhere costs 6. That holds for weights that are
rounded to the nearest; what another method chose may pass the limit by one, and the dialect has the last word.
"""

from __future__ import annotations

import torch

__all__ = ["meets_in_pairs", "pair_floor"]

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
    weight = weight.detach()
    worst = _worst(weight)
    if weight.ndim > 2 and weight.shape[1] % _LANES:
        filled = torch.nn.functional.pad(weight, [0, 0] * (weight.ndim - 2) + [0, -weight.shape[1] % _LANES])
        worst = torch.maximum(worst, _worst(filled))
    floor = (worst / (_LIMIT - _HEADROOM)).float()
    return floor if per_channel else floor.max()


def _worst(weight: torch.Tensor) -> torch.Tensor:
    """The largest magnitude of a sum of two neighbours of one sign, per channel: float64 [M]."""
    rows = (weight.movedim(1, -1) if weight.ndim > 2 else weight).flatten(1).double()
    pairs = torch.nn.functional.pad(rows, [0, rows.shape[1] % 2]).reshape(len(rows), -1, 2)
    return torch.maximum(pairs.clamp_min(0).sum(-1), pairs.clamp_max(0).sum(-1).neg()).amax(1)
