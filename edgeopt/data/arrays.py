"""Samples that are rows of arrays, in memory or in a file; a file's rows are read when asked for, never all at once."""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from edgeopt.core.errors import DataError
from edgeopt.core.events import ProgressListener
from edgeopt.core.spec import TensorSpec
from edgeopt.data.contract import Batch
from edgeopt.data.fit import check_dtype, check_shape
from edgeopt.data.preprocess import Affine
from edgeopt.data.scan import Scan, scan_samples
from edgeopt.data.targets import TargetRule

__all__ = ["ArrayPool", "FileRows", "MemoryRows", "Rows", "array_pool"]


class Rows(Protocol):
    """An array [N, …] that is read by rows."""

    @property
    def dtype(self) -> np.dtype:
        """The element type as stored."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """[N, …]."""
        ...

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """The rows at ``indices``, in that order: a new array."""
        ...


class MemoryRows:
    """Rows of an array that the caller holds in memory anyway."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array
        self.dtype, self.shape = array.dtype, array.shape

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """Copy the rows at ``indices``."""
        return self._array[np.asarray(indices, np.int64)]


class FileRows:
    """Rows of a C-ordered array inside a file, read with ``pread``: pages of a memory map would count as memory used.

    Args:
        descriptor: An open file, owned from now on and closed with this object.
        offset: Where the first row starts, in bytes.
        where: How an error names the array.
    """

    def __init__(self, descriptor: int, offset: int, dtype: np.dtype, shape: tuple[int, ...], where: str) -> None:
        self._descriptor, self._offset, self._where = descriptor, offset, where
        self.dtype, self.shape = dtype, shape
        self._row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
        weakref.finalize(self, os.close, descriptor)

    def read(self, indices: Sequence[int]) -> np.ndarray:
        """Read the rows at ``indices``; neighbours in the file are read at once."""
        out = np.empty((len(indices), *self.shape[1:]), self.dtype)
        view = out.reshape(-1).view(np.uint8).data
        start = 0
        while start < len(indices):
            stop = start + 1
            while stop < len(indices) and indices[stop] == indices[stop - 1] + 1:
                stop += 1
            part = view[start * self._row_bytes : stop * self._row_bytes]
            self._fill(part, self._offset + indices[start] * self._row_bytes)
            start = stop
        return out

    def _fill(self, view: memoryview, offset: int) -> None:
        done = 0
        while done < len(view):
            count = os.preadv(self._descriptor, [view[done:]], offset + done)
            if count == 0:
                raise DataError(f"The file of {self._where} ended early.", fix="Was it changed while it was read?")
            done += count


class ArrayPool:
    """Samples whose inputs are rows of arrays.

    Args:
        rows: One per model input, equally long.
        targets: What is right for each sample, as stored, or None.
        rule: What the targets mean.
        values: What a manifest does to the values of a single input; None where they are ready.
        where: How an error names the samples.
    """

    def __init__(
        self, rows: Sequence[Rows], targets: Rows | None, rule: TargetRule, values: Affine | None, where: str
    ) -> None:
        self._rows, self._targets, self._rule, self._values = tuple(rows), targets, rule, values
        self.where, self.labelled = where, targets is not None

    def __len__(self) -> int:
        return self._rows[0].shape[0]

    def read(self, indices: Sequence[int]) -> Batch:
        """Read samples, as the model takes them."""
        inputs = tuple(rows.read(indices) for rows in self._rows)
        if self._values is not None:
            inputs = tuple(self._values(array) for array in inputs)
        targets = None if self._targets is None else self._rule.ready(self._targets.read(indices))
        return Batch(inputs=inputs, targets=targets)

    def scan(self, classes: int | None, progress: ProgressListener) -> Scan:
        """Check and fingerprint every sample."""
        return scan_samples(self, self._rule, where=self.where, classes=classes, progress=progress)


def array_pool(
    rows: Sequence[tuple[str, Rows]],
    targets: tuple[str, Rows] | None,
    rule: TargetRule,
    *,
    inputs: Sequence[TensorSpec],
    values: Affine | None,
) -> ArrayPool:
    """Make a pool after checking that arrays, targets and the model fit together.

    Args:
        rows: (how an error names it, the array) per model input, in the model's order.
        targets: Likewise; None where there are none.
        rule: What the targets must be.

    Raises:
        DataError: A dtype or a shape does not fit, or the lengths differ.
    """
    for (where, array), spec in zip(rows, inputs, strict=True):
        if not array.shape:
            raise DataError(f"The array {where} is a single number.", fix="Save one sample per row: [N, …].")
        check_dtype(array.dtype, spec, where, converts=values is not None)
        check_shape(array.shape[1:], spec, where)
    named = [*rows, *([targets] if targets else [])]
    if targets is not None:
        if not targets[1].shape:
            raise DataError(f"The array {targets[0]} is a single number.", fix="Save one row per sample: [N, …].")
        rule.check_form(targets[1].dtype, targets[1].shape[1:], targets[0])
    first, count = named[0][0], named[0][1].shape[0]
    for where, array in named[1:]:
        if array.shape[0] != count:
            raise DataError(
                "Two arrays that belong together have different lengths.",
                got=f"{count} in {first}, {array.shape[0]} in {where}",
                fix="Row i of each must be the same sample.",
            )
    stored = targets[1] if targets is not None else None
    if stored is not None and rule.task == "classification":  # small, and read in any order
        stored = MemoryRows(stored.read(range(count)))
    return ArrayPool([array for _, array in rows], stored, rule, values, first)
