"""The samples that every stage is compared on, and the samples a clock is run on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeopt.core.errors import ModelError
from edgeopt.core.fingerprint import hash_array, hash_json
from edgeopt.core.spec import TensorSpec
from edgeopt.data.contract import Batch, Dataset, Split
from edgeopt.model.trained import TrainedModel

__all__ = ["ParityInputs", "demand_finite", "graph_batches", "parity_inputs"]

_AT_A_TIME = 32  # samples per inference, where the graph's batch is open
_ROWS = 4096  # looked at at once: outputs of a whole split are read from disk


@dataclass(frozen=True, slots=True, kw_only=True)
class ParityInputs:
    """The samples that every stage is compared on.

    Attributes:
        arrays: One array [N, …] per model input, in order.
        split: The same samples as a split, for whoever reads in batches.
        rows: int64 [N], which samples of their source they are.
        origin: ``64 samples of the tune split``.
        classification: Whether the first output holds one score per class.
    """

    arrays: tuple[np.ndarray, ...]
    split: Split
    rows: np.ndarray
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
        rows = np.arange(len(arrays[0]))
        return _pack(arrays, rows, f"{len(arrays[0])} random inputs (seed {seed})", classification=False)
    name = "tune" if "tune" in data.splits else "test"
    split = data.splits[name]  # type: ignore[index]
    batches = list(split.batches(256, count))
    arrays = tuple(np.concatenate(parts) for parts in zip(*(batch.inputs for batch in batches), strict=True))
    classification = data.task == "classification"
    origin = f"{len(arrays[0])} samples of the {name} split"
    return _pack(arrays, split.indices[:count], origin, classification=classification)


def demand_finite(outputs: Sequence[np.ndarray], whose: str, rows: np.ndarray, origin: str) -> None:
    """Stop where a model gives NaN or infinity.

    Args:
        outputs: One array [N, …] per output.
        whose: ``The model's own outputs``.
        rows: int64 [N], which samples of their source the inputs were.
        origin: What they are taken from, in words.

    Raises:
        ModelError: The first such sample is named.
    """
    for index, array in enumerate(outputs):
        for start in range(0, len(array), _ROWS):
            finite = (
                np.isfinite(array[start : start + _ROWS]).reshape(len(array[start : start + _ROWS]), -1).all(axis=1)
            )
            if not finite.all():
                sample = int(rows[start + int(np.argmin(finite))])
                raise ModelError(
                    f"{whose} hold NaN or infinite values.",
                    got=f"output {index} for sample {sample}, one of {origin}",
                    fix="Look at that sample, and repair the model before compressing it (an overflow, a division, a "
                    "logarithm); edgeopt changes no numerics to hide this.",
                )


def graph_batches(path: Path, model: TrainedModel, split: Split, limit: int) -> Iterator[dict[str, np.ndarray]]:
    """The first ``limit`` samples of a split by input name, in the batches that the graph at ``path`` takes.

    A last batch that falls short of a fixed one repeats its last sample.
    """
    from edgeopt.graph.io import load_onnx
    from edgeopt.graph.taps import samples_at_a_time

    size = samples_at_a_time(load_onnx(path), _AT_A_TIME)
    for batch in split.batches(size, limit):
        rows = np.minimum(np.arange(size), len(batch.inputs[0]) - 1)
        yield {spec.name: array[rows] for spec, array in zip(model.inputs, batch.inputs, strict=True)}


@dataclass(frozen=True, slots=True)
class _InMemory:
    """A few samples as a data source."""

    arrays: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.arrays[0])

    def read(self, indices: Sequence[int]) -> Batch:
        return Batch(inputs=tuple(array[list(indices)] for array in self.arrays), targets=None)


def _pack(arrays: tuple[np.ndarray, ...], rows: np.ndarray, origin: str, *, classification: bool) -> ParityInputs:
    split = Split(
        name="tune",
        source=_InMemory(arrays),
        indices=np.arange(len(arrays[0])),
        how=origin,
        fingerprint=hash_json([hash_array(array) for array in arrays]),
    )
    return ParityInputs(arrays=arrays, split=split, rows=rows, origin=origin, classification=classification)


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
