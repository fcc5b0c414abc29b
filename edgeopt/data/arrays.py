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
from edgeopt.data.fit import check_dtype, check_labels, check_shape
from edgeopt.data.preprocess import Affine
from edgeopt.data.scan import Scan, scan_samples

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
        labels: int64 [N], or None.
        values: What a manifest does to the values of a single input; None where they are ready.
        where: How an error names the samples.
    """

    def __init__(self, rows: Sequence[Rows], labels: np.ndarray | None, values: Affine | None, where: str) -> None:
        self._rows, self._labels, self._values = tuple(rows), labels, values
        self.where, self.labelled = where, labels is not None

    def __len__(self) -> int:
        return self._rows[0].shape[0]

    def read(self, indices: Sequence[int]) -> Batch:
        """Read samples, as the model takes them."""
        inputs = tuple(rows.read(indices) for rows in self._rows)
        if self._values is not None:
            inputs = tuple(self._values(array) for array in inputs)
        labels = None if self._labels is None else self._labels[np.asarray(indices, np.int64)]
        return Batch(inputs=inputs, labels=labels)

    def scan(self, classes: int | None, progress: ProgressListener) -> Scan:
        """Check and fingerprint every sample."""
        if self._labels is not None:
            check_labels(self._labels, classes, self.where)
        return scan_samples(self, where=self.where, classes=classes, progress=progress)


def array_pool(
    rows: Sequence[tuple[str, Rows]],
    labels: tuple[str, Rows] | None,
    *,
    inputs: Sequence[TensorSpec],
    values: Affine | None,
) -> ArrayPool:
    """Make a pool after checking that arrays, labels and the model's inputs fit together.

    Args:
        rows: (how an error names it, the array) per model input, in the model's order.
        labels: Likewise; None where there are none.

    Raises:
        DataError: A dtype or a shape does not fit, or the lengths differ.
    """
    for (where, array), spec in zip(rows, inputs, strict=True):
        if not array.shape:
            raise DataError(f"The array {where} is a single number.", fix="Save one sample per row: [N, …].")
        check_dtype(array.dtype, spec, where, converts=values is not None)
        check_shape(array.shape[1:], spec, where)
    named = [*rows, *([labels] if labels else [])]
    if labels is not None:
        _check_label_array(*labels)
    first, count = named[0][0], named[0][1].shape[0]
    for where, array in named[1:]:
        if array.shape[0] != count:
            raise DataError(
                "Two arrays that belong together have different lengths.",
                got=f"{count} in {first}, {array.shape[0]} in {where}",
                fix="Row i of each must be the same sample.",
            )
    numbers = labels[1].read(range(count)).astype(np.int64) if labels is not None else None
    return ArrayPool([array for _, array in rows], numbers, values, first)


def _check_label_array(where: str, array: Rows) -> None:
    if array.dtype.kind not in "iu":
        raise DataError(
            f"The labels of {where} are not integers.",
            got=str(array.dtype),
            fix="Save class indices, y.astype(np.int64), or leave y out: then the accuracy is not measured.",
        )
    if len(array.shape) != 1:
        one_hot = len(array.shape) == 2 and array.shape[1] > 1
        raise DataError(
            f"The labels of {where} are not one number per sample.",
            got=f"shape {list(array.shape)}",
            fix="Save class indices [N]: " + ("y.argmax(axis=1)." if one_hot else "y.reshape(-1)."),
        )
