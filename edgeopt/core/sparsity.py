"""N:M sparsity: of every M consecutive weights along the input channels at most N are not zero."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

import numpy as np

__all__ = ["Pattern", "SparseWeight", "held_share"]

_LARGEST = 64


@dataclass(frozen=True, slots=True)
class Pattern:
    """Of every ``group`` weights at most ``kept`` are not zero; 0 < kept < group."""

    kept: int
    group: int

    @classmethod
    def read(cls, text: str) -> Self:
        """The pattern that is written ``N:M``.

        >>> Pattern.read("2:4")
        Pattern(kept=2, group=4)

        Raises:
            ValueError: It is none.
        """
        match = re.fullmatch(r"(\d{1,3}):(\d{1,3})", text)
        kept, group = (int(part) for part in match.groups()) if match else (0, 0)
        if not 0 < kept < group <= _LARGEST:
            raise ValueError(f"{text!r} is no pattern N:M with 0 < N < M ≤ {_LARGEST}, such as 2:4")
        return cls(kept, group)

    @property
    def is_two_of_four(self) -> bool:
        """Whether every group of four has two zeros or more, as sparse tensor cores ask for."""
        return self.group == 4 and self.kept <= 2

    def __str__(self) -> str:
        return f"{self.kept}:{self.group}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseWeight:
    """A weight that holds a pattern, and keeps it through every step.

    Attributes:
        pattern: As written, ``2:4``.
        axis: Of the parameter: its input channels.
        nodes: The layers' fx nodes, in a program that no longer reads the parameter itself, as its weights are integers.
    """

    pattern: str
    axis: int = 1
    nodes: tuple[str, ...] = ()


def held_share(weight: np.ndarray, pattern: Pattern, axis: int) -> float:
    """The share of groups along ``axis`` that hold the pattern; 0 where the axis cannot be divided into groups.

    >>> held_share(np.array([[1, 0, 0, 2, 1, 1, 1, 0]]), Pattern(2, 4), axis=1)
    0.5
    """
    if weight.shape[axis] % pattern.group or not weight.size:
        return 0.0
    groups = np.moveaxis(weight, axis, -1).reshape(-1, pattern.group)
    return float(((groups != 0).sum(axis=1) <= pattern.kept).mean())
