"""One pass over a source before any work starts: checks every value, fingerprints every sample."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from edgeopt.core.errors import DataError
from edgeopt.core.events import Progress, ProgressListener
from edgeopt.data.contract import Batch, Source
from edgeopt.data.targets import TargetRule

__all__ = ["Pool", "Scan", "scan_samples"]

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What is remembered of each sample: some 100 bytes, whatever its size.

    Attributes:
        digests: uint8 [N, 32], the sha256 of each sample's content, targets left out.
        labels: int64 [N], class indices; None for other tasks.
        targets: uint8 [N, 32], the sha256 of each sample's target where it is no class index; None where there is none.
        lows: float64 [N, inputs], each sample's smallest value, ``highs`` its largest; None where the pass did not
            decode the samples (images): then their range is read from the calibration split.
    """

    digests: np.ndarray
    labels: np.ndarray | None
    targets: np.ndarray | None = None
    lows: np.ndarray | None = None
    highs: np.ndarray | None = None

    @property
    def contents(self) -> np.ndarray:
        """uint64 [N]: equal where two samples are byte-identical (and, once in 2⁶⁴ pairs, where they are not)."""
        return np.ascontiguousarray(self.digests[:, :8]).view(np.uint64).reshape(-1)


class Pool(Source, Protocol):
    """A source that can be checked."""

    @property
    def where(self) -> str:
        """How an error names it, e.g. ``x of digits.npz``."""
        ...

    @property
    def labelled(self) -> bool:
        """Whether its samples have targets."""
        ...

    def scan(self, classes: int | None, progress: ProgressListener) -> Scan:
        """Read every sample once; ``classes``: how many there are, None where unknown.

        Raises:
            DataError: A value is not finite, a target cannot be right, a sample cannot be read.
        """
        ...


def scan_samples(
    source: Source, rule: TargetRule, *, where: str, classes: int | None, progress: ProgressListener
) -> Scan:
    """Scan a source by reading it, some MiB at a time.

    Args:
        source: At least one sample.
        rule: What its targets must be.
        where: How an error names the source.

    Raises:
        DataError: A value is not finite, or a target cannot be right.
    """
    count = len(source)
    first = source.read([0])
    sample_bytes = sum(array.nbytes for array in first.inputs) + (0 if first.targets is None else first.targets.nbytes)
    step = max(1, _CHUNK_BYTES // max(1, sample_bytes))
    digests = np.empty((count, 32), np.uint8)
    indexed = rule.task == "classification"
    labels = np.empty(count, np.int64) if indexed and first.targets is not None else None
    targets = np.empty((count, 32), np.uint8) if not indexed and first.targets is not None else None
    lows, highs = np.empty((count, len(first.inputs))), np.empty((count, len(first.inputs)))
    for start in range(0, count, step):
        stop = min(start + step, count)
        batch = source.read(range(start, stop))
        if (first.targets is None) != (batch.targets is None):
            raise DataError(f"Some samples of {where} have a label and some have none.")
        if batch.targets is not None:
            rule.check(batch.targets, classes, where, start)
            if labels is not None:
                labels[start:stop] = batch.targets
            elif targets is not None:
                targets[start:stop] = _hashed(rule.content(target) for target in batch.targets)
        for position, array in enumerate(batch.inputs):
            flat = array.reshape(stop - start, -1)
            lows[start:stop, position], highs[start:stop, position] = flat.min(axis=1), flat.max(axis=1)
            _check_finite(array, lows[start:stop, position], highs[start:stop, position], where, start)
        digests[start:stop] = _digests(batch)
        progress(Progress(stage="data", done=stop, total=count))
    return Scan(digests=digests, labels=labels, targets=targets, lows=lows, highs=highs)


def _digests(batch: Batch) -> np.ndarray:
    rows = []
    for sample in range(len(batch.inputs[0])):
        digest = hashlib.sha256()
        for array in batch.inputs:
            digest.update(np.ascontiguousarray(array[sample]).data)
        rows.append(digest.digest())
    return np.frombuffer(b"".join(rows), np.uint8).reshape(-1, 32)


def _hashed(contents: Iterable[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(hashlib.sha256(c).digest() for c in contents), np.uint8).reshape(-1, 32)


def _check_finite(array: np.ndarray, lows: np.ndarray, highs: np.ndarray, where: str, first: int) -> None:
    """A sample whose smallest or largest value is not finite holds NaN or Inf (min and max propagate NaN)."""
    bad = ~(np.isfinite(lows) & np.isfinite(highs))
    if bad.any():
        sample = int(np.argmax(bad))
        place: Sequence[int] = [int(i) for i in np.argwhere(~np.isfinite(array[sample]))[0]]
        raise DataError(
            f"The data of {where} holds a value that is not finite.",
            got=f"{array[sample][tuple(place)]} at [{', '.join(map(str, [first + sample, *place]))}]",
            fix="Repair or leave out that sample; a NaN makes every range and every accuracy meaningless.",
        )
