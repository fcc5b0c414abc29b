"""Units of removal and the axes that they lie on: a union-find over every index of every tensor's axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Atom", "Axis", "Units", "Value", "fixed", "kept_size", "size_of"]

_Ids = Any  # np.ndarray of int64; numpy's generic would say no more


@dataclass(frozen=True, slots=True)
class Atom:
    """A factor of an axis.

    Attributes:
        size: How many indices; a symbolic one is a large prime that stands for it.
        units: int64 [size], the unit of each index; None where no index can ever be removed.
    """

    size: int
    units: _Ids | None = None


Axis = tuple[Atom, ...]
"""An axis is the product of its atoms in row-major order: what a reshape merges, a later one can take apart again."""

Value = tuple[Axis, ...]
"""A tensor: one axis per dimension."""


def fixed(size: int) -> Axis:
    """An axis that stays."""
    return (Atom(size),)


def size_of(axis: Axis) -> int:
    """How many indices it has."""
    return math.prod(atom.size for atom in axis)


def kept_size(axis: Axis, removed: _Ids) -> int:
    """How many indices it has without the units that ``removed`` (bool, by unit) marks."""
    return math.prod(atom.size if atom.units is None else int((~removed[atom.units]).sum()) for atom in axis)


class Units:
    """Sets of indices that can only be removed together."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._reasons: dict[int, list[str]] = {}
        self._inexact: set[int] = set()

    def __len__(self) -> int:
        return len(self._parent)

    def fresh(self, count: int) -> _Ids:
        """Units of their own, one per index."""
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        return np.arange(first, first + count, dtype=np.int64)

    def find(self, unit: int) -> int:
        """The one that stands for all it was joined with."""
        parent = self._parent
        while parent[unit] != unit:
            parent[unit] = parent[parent[unit]]
            unit = parent[unit]
        return unit

    def roots(self) -> _Ids:
        """int64 [len(self)]: ``find`` of every unit."""
        return np.fromiter((self.find(unit) for unit in range(len(self))), np.int64, len(self))

    def join(self, one: _Ids, other: _Ids) -> None:
        """Tie index to index."""
        for left, right in zip(one.tolist(), other.tolist(), strict=True):
            first, second = self.find(left), self.find(right)
            if first == second:
                continue
            self._parent[second] = first
            for reason in self._reasons.pop(second, ()):
                self._add(first, reason)
            if second in self._inexact:
                self._inexact.add(first)

    def pin(self, units: _Ids | None, reason: str) -> None:
        """Never remove these."""
        for unit in () if units is None else set(units.tolist()):
            self._add(self.find(unit), reason)

    def mark_inexact(self, units: _Ids | None) -> None:
        """Removing these changes what the others' statistics are (a LayerNorm's mean, say)."""
        for unit in () if units is None else set(units.tolist()):
            self._inexact.add(self.find(unit))

    def reasons(self, unit: int) -> tuple[str, ...]:
        """Why it is never removed; empty: it can be."""
        return tuple(self._reasons.get(self.find(unit), ()))

    def is_inexact(self, unit: int) -> bool:
        """Whether removing it is not the same as its being zero."""
        return self.find(unit) in {self.find(one) for one in self._inexact} if self._inexact else False

    def flat(self, axis: Axis, why: str) -> _Ids | None:
        """int64 [size of the axis]: the unit of each index; None where all stay.

        Of two atoms with units only the first stays removable: what is left must be a box.
        """
        tracked = [number for number, atom in enumerate(axis) if atom.units is not None]
        for number in tracked[1:]:
            self.pin(axis[number].units, f"{why} merges it with other channels")
        if not tracked:
            return None
        number = tracked[0]
        before = math.prod(atom.size for atom in axis[:number])
        after = math.prod(atom.size for atom in axis[number + 1 :])
        units = axis[number].units
        if units is None:
            return None
        if before * after * units.size > 1 << 24:  # a symbolic size, or no axis of channels at all
            self.pin(units, f"{why} merges it with an axis of open size")
            return None
        return np.tile(np.repeat(units, after), before)

    def tie(self, one: Axis, other: Axis, why: str) -> Axis:
        """Axes that must stay equal; returns the one to go on with. An axis of size 1 is broadcast."""
        if 1 in (size_of(one), size_of(other)) and size_of(one) != size_of(other):
            narrow, wide = (one, other) if size_of(one) == 1 else (other, one)
            self.pin_all([narrow], f"{why} repeats it")
            return wide
        if len(one) == len(other) and all(a.size == b.size for a, b in zip(one, other, strict=True)):
            pairs = [(a, b) for a, b in zip(one, other, strict=True)]
            return tuple(Atom(a.size, self._tie(a.units, b.units, why)) for a, b in pairs)
        units = self._tie(self.flat(one, why), self.flat(other, why), why)
        return (Atom(size_of(one), units),)

    def _tie(self, one: _Ids | None, other: _Ids | None, why: str) -> _Ids | None:
        if one is None or other is None:
            self.pin(one if other is None else other, f"{why} ties it to an axis that stays")
            return None
        self.join(one, other)
        return one

    def pin_all(self, value: Sequence[Axis], reason: str) -> None:
        """Pin every axis."""
        for axis in value:
            for atom in axis:
                self.pin(atom.units, reason)

    def _add(self, root: int, reason: str) -> None:
        known = self._reasons.setdefault(root, [])
        if reason not in known:
            known.append(reason)
