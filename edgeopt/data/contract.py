"""What every data source gives: disjoint splits of named arrays, read in batches, never all at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import numpy as np

from edgeopt.core.events import Event
from edgeopt.core.fingerprint import hash_json
from edgeopt.core.slices import SliceColumn

__all__ = ["Batch", "Dataset", "Decoder", "InputContract", "Source", "Split", "SplitName", "Task"]

SplitName = Literal["train", "calibration", "tune", "test"]
Task = Literal["classification", "regression", "embedding", "segmentation", "detection", "unlabelled"]
Decoder = Callable[[Mapping[str, np.ndarray]], np.ndarray]
"""Detections [N, K, 6] of a batch's outputs by name: rows (x1, y1, x2, y2, score, class), padded with score 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Some samples.

    Attributes:
        inputs: One array [N, …] per model input, in the model's order.
        targets: What is right for each sample, [N, …]; None where the data does not say. Classification: int64 [N] in
            [0, classes). Other tasks: as ``data.targets.TargetRule`` has it.
    """

    inputs: tuple[np.ndarray, ...]
    targets: np.ndarray | None


class Source(Protocol):
    """Random access to samples that need not fit into memory."""

    def __len__(self) -> int: ...

    def read(self, indices: Sequence[int]) -> Batch:
        """The samples at ``indices``, in that order."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """A part of a source that serves one purpose.

    Attributes:
        name: Its purpose.
        source: Where its samples come from.
        indices: int64 [N], which samples of the source, in a seeded order: the first few are a fair sample.
        how: One sentence for the manifest: given as such, or split off how, with which seed.
        fingerprint: Sha256 over what the samples contain and their order.
        columns: Properties of the samples by name, one code per sample, in the order of ``indices``.
    """

    name: SplitName
    source: Source
    indices: np.ndarray
    how: str
    fingerprint: str
    columns: Mapping[str, SliceColumn] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.indices)

    def batches(self, size: int, limit: int | None = None) -> Iterator[Batch]:
        """Read the first ``limit`` samples (all, where None) in batches of ``size``; the last may be smaller."""
        count = len(self) if limit is None else min(limit, len(self))
        for start in range(0, count, size):
            yield self.source.read(self.indices[start : min(start + size, count)].tolist())

    def first(self, count: int) -> Split:
        """The first ``count`` samples as a split of its own; this one, where it has no more."""
        if count >= len(self):
            return self
        return replace(
            self,
            indices=self.indices[:count],
            how=f"the first {count} of {len(self)}; {self.how}",
            fingerprint=hash_json({"first": count, "of": self.fingerprint}),
            columns={name: replace(column, codes=column.codes[:count]) for name, column in self.columns.items()},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class InputContract:
    """What an input means, for whoever feeds the model on the device.

    Attributes:
        layout: ``NCHW``, ``NC``, … or None where unknown.
        value_range: Smallest and largest value seen in the calibration data, after preprocessing.
        scale: What was multiplied by first, as the manifest writes it, e.g. ``1/255``.
        mean: What was subtracted per channel, and ``std`` what it was divided by; None where the data came ready.
    """

    layout: str | None = None
    value_range: tuple[float, float] | None = None
    scale: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    preprocessing: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Splits that are disjoint by construction.

    Attributes:
        name: As the report names it.
        task: What the targets are; ``unlabelled``: there are none, or they are left alone.
        splits: At least ``calibration`` and ``test``; ``tune`` and ``train`` where there is enough.
        classes: Class names, in label order; empty where unknown.
        fingerprint: Sha256 over the splits' fingerprints.
        contract: What the inputs mean; for a model with several, what the first one means.
        contracts: The same by input name, one per input.
        licence: The data's licence, ``provenance`` where it comes from, as its manifest says.
        events: What the user must know, e.g. samples that are in two given splits.
        metrics: What the outputs are judged by, the one whose drop decides first; empty: the task's own.
        decoder: Detection: what makes detections of the model's outputs; None: the first output holds them.
    """

    name: str
    task: Task
    splits: Mapping[SplitName, Split]
    fingerprint: str
    classes: tuple[str, ...] = ()
    contract: InputContract = field(default_factory=InputContract)
    contracts: Mapping[str, InputContract] = field(default_factory=dict)
    licence: str | None = None
    provenance: str | None = None
    events: tuple[Event, ...] = ()
    metrics: tuple[str, ...] = ()
    decoder: Decoder | None = None
