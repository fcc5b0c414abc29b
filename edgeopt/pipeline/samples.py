"""The samples that every stage is compared on, and the samples a clock is run on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeopt.core.fingerprint import hash_array, hash_json
from edgeopt.core.spec import TensorSpec
from edgeopt.data.contract import Batch, Dataset, Split
from edgeopt.model.trained import TrainedModel

__all__ = ["ParityInputs", "parity_inputs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityInputs:
    """The samples that every stage is compared on.

    Attributes:
        arrays: One array [N, …] per model input, in order.
        split: The same samples as a split, for whoever reads in batches.
        origin: ``64 samples of the tune split``.
        classification: Whether the first output holds one score per class.
    """

    arrays: tuple[np.ndarray, ...]
    split: Split
    origin: str
    classification: bool

    def named(self, model: TrainedModel) -> dict[str, np.ndarray]:
        """The arrays by input name."""
        return {spec.name: array for spec, array in zip(model.inputs, self.arrays, strict=True)}

    def fingerprint(self) -> str:
        """Content hash, for cache keys."""
        return self.split.fingerprint


def parity_inputs(model: TrainedModel, data: Dataset | None, count: int, seed: int) -> ParityInputs:
    """The first ``count`` samples of the tuning split (the test split, where there is none).

    Without data: seeded random inputs. They compare two programs; nothing is calibrated or judged on them.
    """
    if data is None:
        arrays = _random(model.inputs, count, seed)
        return _pack(arrays, f"{len(arrays[0])} random inputs (seed {seed})", classification=False)
    name = "tune" if "tune" in data.splits else "test"
    batches = list(data.splits[name].batches(256, count))  # type: ignore[index]
    arrays = tuple(np.concatenate(parts) for parts in zip(*(batch.inputs for batch in batches), strict=True))
    classification = data.task == "classification"
    return _pack(arrays, f"{len(arrays[0])} samples of the {name} split", classification=classification)


@dataclass(frozen=True, slots=True)
class _InMemory:
    """A few samples as a data source."""

    arrays: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.arrays[0])

    def read(self, indices: Sequence[int]) -> Batch:
        return Batch(inputs=tuple(array[list(indices)] for array in self.arrays), labels=None)


def _pack(arrays: tuple[np.ndarray, ...], origin: str, *, classification: bool) -> ParityInputs:
    split = Split(
        name="tune",
        source=_InMemory(arrays),
        indices=np.arange(len(arrays[0])),
        how=origin,
        fingerprint=hash_json([hash_array(array) for array in arrays]),
    )
    return ParityInputs(arrays=arrays, split=split, origin=origin, classification=classification)


def _random(specs: Sequence[TensorSpec], count: int, seed: int) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    fixed = next((s.batch for s in specs if isinstance(s.batch, int)), None)
    rows = fixed * max(1, count // fixed) if fixed else count
    arrays = []
    for spec in specs:
        shape = (rows, *(dim if isinstance(dim, int) else 1 for dim in spec.shape[1:]))
        kind = np.dtype(spec.dtype)
        values = rng.standard_normal(shape) if kind.kind == "f" else rng.integers(0, 2, shape)
        arrays.append(values.astype(kind))
    return tuple(arrays)
