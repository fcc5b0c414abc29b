"""Example tensors for tracing and for comparing two programs. Never for calibration."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from edgeopt.core.spec import TensorSpec
from edgeopt.model.signature import torch_dtype

__all__ = ["concrete_shape", "example_inputs"]

# Sizes that stand for named dimensions while tracing: distinct, so that two names are never taken for one size, and
# large enough for a few strided convolutions.
_NAMED = (32, 48, 80, 112, 176, 208)


def example_inputs(
    specs: Sequence[TensorSpec],
    *,
    batch: int | None = None,
    sharing: Sequence[int] = (),
    seed: int = 0,
    integers: int = 0,
) -> tuple[torch.Tensor, ...]:
    """One tensor per spec: small normal floats, and one value for all integers.

    Args:
        specs: What the inputs look like.
        batch: The first dimension of the inputs in ``sharing``; None: as their specs say.
        sharing: Positions of the inputs that have the batch first.
        seed: Of the floats.
        integers: What fills integer and boolean inputs; 0 is a valid index into any table.
    """
    generator = torch.Generator().manual_seed(seed)
    shapes = concrete_shape(specs)
    tensors = []
    for position, (spec, shape) in enumerate(zip(specs, shapes, strict=True)):
        size = (batch, *shape[1:]) if batch is not None and position in sharing else shape
        dtype = torch_dtype(spec.dtype)
        if dtype.is_floating_point:
            tensors.append(torch.randn(size, generator=generator).to(dtype))
        else:
            tensors.append(torch.full(size, integers, dtype=dtype))
    return tuple(tensors)


def concrete_shape(specs: Sequence[TensorSpec]) -> list[tuple[int, ...]]:
    """The specs' shapes with a number for each name: 2 for a name that comes first, distinct larger ones elsewhere."""
    names: dict[str, int] = {}
    for spec in specs:
        for axis, dim in enumerate(spec.shape):
            if isinstance(dim, str) and dim not in names:
                names[dim] = 2 if axis == 0 else _NAMED[len(names) % len(_NAMED)]
    return [tuple(names[d] if isinstance(d, str) else d for d in spec.shape) for spec in specs]
