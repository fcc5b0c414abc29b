"""What each test sample came to, so that two bundles can be compared sample by sample without the data."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt.core.errors import BundleError
from edgeopt.core.slices import SliceColumn

__all__ = ["OUTCOMES", "PREDICTION", "Outcomes", "Samples", "read_outcomes", "write_outcomes"]

OUTCOMES = "outcomes.npz"
PREDICTION = "prediction"
"""Beside the metrics, of classifiers: ``label`` and ``predicted``, integers [N], and ``margin`` in [0, 1], float16 [N]."""

Samples = Mapping[str, np.ndarray]
"""What a metric keeps of each sample: arrays [N, …] by names of its own, from which it is computed for any weights."""

_HEADER = "header"
_SCHEMA_VERSION = 1
_MOST_BYTES = 4 * 2**30  # a small archive may unpack to anything
_AGAIN = "Compile the bundle again, or leave the comparison by samples out."


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """Per-sample outcomes on one split.

    Attributes:
        split: The split's fingerprint: equal fingerprints are the same samples in the same order.
        task: Of the data.
        primary: The metric whose drop decides.
        indices: int64 [N], each sample's place in its source.
        slices: Columns by name.
        candidate: What each metric, by its name, keeps of the candidate's outputs; ``reference``: of FP32's.
    """

    split: str
    task: str
    primary: str
    indices: np.ndarray
    slices: Mapping[str, SliceColumn] = field(default_factory=dict)
    candidate: Mapping[str, Samples] = field(default_factory=dict)
    reference: Mapping[str, Samples] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.indices)


def write_outcomes(path: Path, outcomes: Outcomes) -> None:
    """Write ``outcomes.npz``: plain arrays, compressed, and a header in JSON.

    Raises:
        BundleError: An array has not one row per sample, or holds Python objects.
    """
    arrays: dict[str, np.ndarray] = {"indices": outcomes.indices}
    arrays |= {f"slice/{name}": column.codes for name, column in outcomes.slices.items()}
    for whose, metrics in (("candidate", outcomes.candidate), ("reference", outcomes.reference)):
        for metric, samples in metrics.items():
            arrays |= {f"{whose}/{metric}/{name}": array for name, array in samples.items()}
    for name, array in arrays.items():
        if array.dtype.hasobject or array.ndim == 0 or len(array) != len(outcomes):
            raise BundleError(
                f"The outcomes {name!r} have not one row of numbers per sample.",
                got=f"{array.dtype}{list(array.shape)} for {len(outcomes)} samples",
            )
    header = {
        "schema_version": _SCHEMA_VERSION,
        "split": outcomes.split,
        "task": outcomes.task,
        "primary": outcomes.primary,
        "slices": {name: list(column.values) for name, column in outcomes.slices.items()},
    }
    arrays[_HEADER] = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # its stub takes the names for options


def read_outcomes(path: Path) -> Outcomes:
    """Read ``outcomes.npz``.

    Raises:
        BundleError: It is missing, damaged, or of a newer edgeopt.
    """
    try:
        _demand_small(path)
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        header = json.loads(arrays.pop(_HEADER).tobytes().decode())
        if header["schema_version"] > _SCHEMA_VERSION:
            raise BundleError(
                "The outcomes were written by a newer edgeopt.",
                got=f"schema version {header['schema_version']} in {path}; this edgeopt reads {_SCHEMA_VERSION}",
                fix="Upgrade edgeopt.",
            )
        return _read(arrays, header)
    except FileNotFoundError:
        raise BundleError("There are no outcomes of single samples.", got=path, fix=_AGAIN) from None
    except (
        OSError,
        zipfile.BadZipFile,
        zlib.error,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        EOFError,
    ) as error:
        raise BundleError("The outcomes cannot be read.", got=f"{path}: {error}", fix=_AGAIN) from error


def _demand_small(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        if sum(member.file_size for member in archive.infolist()) > _MOST_BYTES:
            raise ValueError(f"it unpacks to more than {_MOST_BYTES / 2**30:g} GiB")


def _read(arrays: dict[str, np.ndarray], header: dict[str, Any]) -> Outcomes:
    indices = arrays.pop("indices")
    found: dict[str, dict[str, dict[str, np.ndarray]]] = {"candidate": {}, "reference": {}}
    slices: dict[str, SliceColumn] = {}
    for key, array in arrays.items():
        if array.ndim == 0 or len(array) != len(indices):
            raise ValueError(f"{key} has not {len(indices)} rows")
        whose, _, rest = key.partition("/")
        if whose == "slice":
            values = tuple(str(value) for value in header["slices"][rest])
            if array.dtype.kind not in "iu" or array.min(initial=-1) < -1 or array.max(initial=-1) >= len(values):
                raise ValueError(f"{key} does not index its {len(values)} values")
            slices[rest] = SliceColumn(codes=array, values=values)
        else:
            metric, _, name = rest.partition("/")
            found[whose].setdefault(metric, {})[name] = array
    return Outcomes(
        split=str(header["split"]),
        task=str(header["task"]),
        primary=str(header["primary"]),
        indices=indices,
        slices=slices,
        candidate=found["candidate"],
        reference=found["reference"],
    )
