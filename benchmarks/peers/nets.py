"""The nets that all tools get: one FP32 ONNX file, the same calibration samples, all test samples."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgeopt.core.fingerprint import hash_file
from edgeopt.data.contract import Dataset, Split
from edgeopt.data.load import load_data
from edgeopt.graph.export import export_onnx
from edgeopt.graph.io import load_onnx
from edgeopt.model.load import load_model
from edgeopt.targets.load import find_target

__all__ = ["Net", "find_nets", "open_net"]

_EXAMPLE = "digits"  # the shipped one, where there is no zoo
_ROOT = Path(__file__).parents[2]
# What edgeopt judges by in its own run; every artifact, edgeopt's too, is evaluated here on all test samples.
_FEW_TESTS = 128


@dataclass(frozen=True, kw_only=True)
class Net:
    """A net with its data.

    Attributes:
        model: What edgeopt compiles.
        onnx: The same in FP32 for the peers: dynamic batch, edgeopt's own export where the zoo holds none.
        calibration: ``.npz``, one array [N, …] per input name: what all tools calibrate on.
        edgeopt_data: ``.npz`` for edgeopt: the same calibration samples, its tuning split, and few test samples.
        samples: N.
        labels: int64 [M] of the test split; None where the data has none.
    """

    name: str
    model: Path
    onnx: Path
    calibration: Path
    edgeopt_data: Path
    samples: int
    input_names: tuple[str, ...]
    data: Dataset
    labels: np.ndarray | None

    @property
    def test(self) -> Split:
        """All test samples."""
        return self.data.splits["test"]

    def fingerprint(self) -> list[str]:
        """What a peer's result depends on."""
        return [hash_file(self.onnx), hash_file(self.calibration)]


def find_nets(zoo: Path) -> dict[str, Path]:
    """Folders of the zoo by name; the shipped example where there is no zoo."""
    found = {path.parent.name: path.parent for path in sorted(zoo.glob("*/model.pt2"))}
    return found or {_EXAMPLE: _ROOT / "examples" / _EXAMPLE}


def open_net(name: str, folder: Path, work: Path, samples: int) -> Net:
    """Read a net and write what the tools are given, into ``work/nets/NAME``.

    Args:
        folder: With ``model.pt2``, ``data.npz`` (or a folder with a ``manifest.yaml``), and perhaps ``model.onnx``.
        samples: How many calibration samples; all where the split has fewer.
    """
    place = work / "nets" / name
    place.mkdir(parents=True, exist_ok=True)
    model = folder / "model.pt2"
    loaded = load_model(model)
    data = load_data(_data_of(name, folder), inputs=loaded.inputs, outputs=loaded.outputs)
    names = tuple(spec.name for spec in loaded.inputs)
    onnx = place / "model.onnx"
    if (folder / "model.onnx").is_file():
        shutil.copyfile(folder / "model.onnx", onnx)
    else:
        opset = find_target("local").opset
        export_onnx(loaded.program, loaded.inputs, loaded.outputs, onnx, opset=opset)
    found = tuple(value.name for value in load_onnx(onnx).graph.inputs)
    if found != names:
        sys.exit(f"{onnx} has the inputs {found}, and {model} has {names}")
    calibration = _first(data.splits["calibration"], names, samples)
    arrays = {key: array for key, array in calibration.items() if key in names}
    np.savez(place / "calibration.npz", **arrays)
    return Net(
        name=name,
        model=model,
        onnx=onnx,
        calibration=place / "calibration.npz",
        edgeopt_data=_write_for_edgeopt(place, data, names, samples),
        samples=len(arrays[names[0]]),
        input_names=names,
        data=data,
        labels=_labels(data),
    )


def _data_of(name: str, folder: Path) -> str | Path:
    if (folder / "data.npz").is_file():
        return folder / "data.npz"
    manifest = next(iter(sorted(folder.glob("*/manifest.yaml"))), None)
    return manifest or name  # the shipped set of that name


def _write_for_edgeopt(place: Path, data: Dataset, names: tuple[str, ...], samples: int) -> Path:
    """The named splits as edgeopt's own ``.npz``: ``x``, ``y``, ``x_calibration``, …, ``x/NAME`` for several inputs."""
    limits = {"calibration": samples, "tune": None, "test": _FEW_TESTS}
    arrays: dict[str, np.ndarray] = {}
    for split, limit in limits.items():
        if split not in data.splits:
            continue
        suffix = "" if split == "test" else f"_{split}"
        for key, array in _first(data.splits[split], names, limit).items():
            if key == _LABELS:
                arrays[f"y{suffix}"] = array
            else:
                arrays[f"x{suffix}" if len(names) == 1 else f"x{suffix}/{key}"] = array
    np.savez(place / "edgeopt.npz", **arrays)
    return place / "edgeopt.npz"


_LABELS = ""  # no input has this name


def _first(split: Split, names: tuple[str, ...], limit: int | None) -> dict[str, np.ndarray]:
    """The first ``limit`` samples of a split, by input name; labels under ``_LABELS``."""
    parts: dict[str, list[np.ndarray]] = {}
    for batch in split.batches(64, limit):
        for key, array in _named(batch.inputs, batch.targets, names):
            parts.setdefault(key, []).append(np.asarray(array))
    return {key: np.concatenate(arrays) for key, arrays in parts.items()}


def _named(
    inputs: tuple[np.ndarray, ...], labels: np.ndarray | None, names: tuple[str, ...]
) -> Iterator[tuple[str, np.ndarray]]:
    yield from zip(names, inputs, strict=True)
    if labels is not None:
        yield _LABELS, labels


def _labels(data: Dataset) -> np.ndarray | None:
    if data.task != "classification":
        return None
    parts = [batch.targets for batch in data.splits["test"].batches(256)]
    return np.concatenate([part for part in parts if part is not None]).astype(np.int64)
