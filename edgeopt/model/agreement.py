"""Do two forms of a model compute the same, at one batch size and at another?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from edgeopt.core.spec import TensorSpec
from edgeopt.model.examples import example_inputs
from edgeopt.model.failures import first_line

__all__ = ["disagreement"]

Call = Callable[..., Any]

# Another batch size may pick another kernel, which sums in another order: some units in the last place, never more.
_RELATIVE, _ABSOLUTE = 1e-3, 1e-5


def disagreement(
    reference: Call, candidate: Call, specs: Sequence[TensorSpec], *, batch: int, sharing: Sequence[int]
) -> str | None:
    """Compare ``candidate`` with ``reference`` at ``batch`` rows, and row by row at a multiple of them.

    Args:
        reference: Takes one tensor per spec; is only called with ``batch`` rows.
        candidate: Likewise; should take any number of rows.
        specs: The inputs.
        batch: A number of rows that ``reference`` takes.
        sharing: The positions of the inputs that have the batch first.

    Returns:
        What differs, as a phrase; None where they agree.
    """
    try:
        with torch.no_grad():
            parts = _parts(specs, batch, sharing, integers=1)
            try:
                expected = [_flat(reference(*part)) for part in parts]
            except (IndexError, RuntimeError):  # a table of one row: 1 is no index into it
                parts = _parts(specs, batch, sharing, integers=0)
                expected = [_flat(reference(*part)) for part in parts]
            whole = tuple(
                torch.cat([part[position] for part in parts]) if position in sharing else parts[0][position]
                for position in range(len(specs))
            )
            same, other = _flat(candidate(*parts[0])), _flat(candidate(*whole))
    except Exception as error:  # noqa: BLE001  whatever a program raises here is the answer, not a failure of ours
        return f"it fails at another batch size ({type(error).__name__}: {first_line(error)})"
    for position, outputs in enumerate(zip(*expected, strict=True)):
        if not _close(outputs[0], same[position]):
            return f"output {position} differs at batch {batch}"
        if not _close(_joined(outputs, other[position], batch), other[position]):
            return f"the rows of output {position} depend on each other or on the batch size"
    return None


def _parts(
    specs: Sequence[TensorSpec], batch: int, sharing: Sequence[int], integers: int
) -> list[tuple[torch.Tensor, ...]]:
    """Several batches that differ in the inputs that have a batch, and in those only."""
    chunks = 3 if batch == 1 else 2
    parts = [
        example_inputs(specs, batch=batch, sharing=sharing, seed=1 + chunk, integers=integers * (chunk % 2))
        for chunk in range(chunks)
    ]
    return [
        tuple(t if at in sharing else first for at, (t, first) in enumerate(zip(part, parts[0], strict=True)))
        for part in parts
    ]


def _joined(outputs: Sequence[torch.Tensor], whole: torch.Tensor, batch: int) -> torch.Tensor:
    """The outputs of the parts, put together along the axis that grows with the batch; the first, where none does."""
    first = outputs[0]
    growing = [
        axis
        for axis, (part, all_) in enumerate(zip(first.shape, whole.shape, strict=False))
        if part == batch and all_ == batch * len(outputs)
    ]
    return torch.cat(list(outputs), dim=growing[0]) if len(growing) == 1 and whole.ndim == first.ndim else first


def _flat(outputs: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, torch.Tensor)]


def _close(expected: torch.Tensor, got: torch.Tensor) -> bool:
    if expected.shape != got.shape or expected.dtype != got.dtype:
        return False
    if not expected.dtype.is_floating_point or expected.numel() == 0:
        return bool(torch.equal(expected, got))
    # Half precision keeps three digits: there a last place is already this coarse.
    coarse = 10 if expected.dtype in (torch.float16, torch.bfloat16) else 1
    limit = coarse * (_ABSOLUTE + _RELATIVE * expected.abs().nan_to_num(0.0, 0.0, 0.0).amax())
    return bool(torch.allclose(expected.double(), got.double(), rtol=0, atol=float(limit), equal_nan=True))
