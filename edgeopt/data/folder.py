"""Folders of class folders with images, decoded a batch at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edgeopt.core.errors import DataError, nearest_first
from edgeopt.core.events import Progress, ProgressListener
from edgeopt.core.fingerprint import hash_json
from edgeopt.core.spec import TensorSpec
from edgeopt.data.contract import Batch, SplitName
from edgeopt.data.fit import check_labels, check_shape
from edgeopt.data.manifest import Manifest
from edgeopt.data.preprocess import ImageReader, image_reader, opened, unreadable
from edgeopt.data.scan import Scan

__all__ = ["FolderPool", "folder_pools"]

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"})
_SPLITS: tuple[SplitName, ...] = ("test", "calibration", "tune", "train")


class FolderPool:
    """Image files and their labels.

    Args:
        paths: One per sample.
        labels: int64 [N], or None for an unlabelled task.
        where: How an error names the samples: the folder.
    """

    def __init__(
        self, paths: Sequence[Path], labels: np.ndarray | None, reader: ImageReader, spec: TensorSpec, where: str
    ) -> None:
        self._paths, self._labels, self._reader, self._spec = tuple(paths), labels, reader, spec
        self.where, self.labelled = where, labels is not None

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def paths(self) -> tuple[Path, ...]:
        """One file per sample."""
        return self._paths

    def read(self, indices: Sequence[int]) -> Batch:
        """Decode images, as the model takes them."""
        images = [self._decoded(self._paths[index]) for index in indices]
        labels = None if self._labels is None else self._labels[np.asarray(indices, np.int64)]
        return Batch(inputs=(np.stack(images),), targets=labels)

    def scan(self, classes: int | None, progress: ProgressListener) -> Scan:
        """Fingerprint the files and see that each one can be decoded; JPEGs at an eighth of their size, to be quick."""
        if self._labels is not None:
            check_labels(self._labels, classes, self.where)
        self._decoded(self._paths[0])
        how = hash_json(self._reader.how.model_dump(mode="json")).encode()
        digests = np.empty((len(self), 32), np.uint8)
        for index, path in enumerate(self._paths):
            digests[index] = np.frombuffer(hashlib.sha256(how + _checked_bytes(path)).digest(), np.uint8)
            progress(Progress(stage="data", done=index + 1, total=len(self)))
        return Scan(digests=digests, labels=self._labels)

    def _decoded(self, path: Path) -> np.ndarray:
        image = self._reader(path)
        check_shape(image.shape, self._spec, f"image {path}")
        return image


def folder_pools(
    folder: Path, manifest: Manifest, *, inputs: Sequence[TensorSpec], classes: int | None
) -> tuple[dict[SplitName, FolderPool], tuple[str, ...]]:
    """Find the images: ``folder/CLASS/*.png`` is the test split; ``folder/test/CLASS/*.png``, … are given splits.

    Labels are what the manifest's ``labels`` says of a folder's name, else its place in ``classes``, else its place
    in the sorted folder names, as in torchvision's ``ImageFolder``.

    Args:
        classes: How many the model has; None where unknown.

    Returns:
        The pools, and the class names in label order (empty where only ``labels`` is given).

    Raises:
        DataError: There are no class folders or no images, the labels are ambiguous, the manifest is incomplete.
    """
    if len(inputs) != 1:
        raise DataError(
            "A folder of images feeds one input.",
            got=f"a model with inputs {', '.join(spec.name for spec in inputs)}",
            fix="Use an .npz with x/NAME arrays, or package.module:callable.",
        )
    if manifest.task not in ("classification", "unlabelled"):
        raise DataError(
            "A folder of class folders holds no targets but classes.",
            got=f"task: {manifest.task} with source: {{folder: {folder.name}}}",
            fix="Use an .npz with x and y, or source: {dataset: package.module:callable}.",
        )
    reader = image_reader(manifest.preprocessing, inputs[0])
    below = _folders(folder)
    given = {name: folder / name for name in _SPLITS if (folder / name) in below}
    if given and len(given) != len(below):
        odd = ", ".join(path.name for path in below if path.name not in given)
        raise DataError(
            f"The folder {folder} mixes splits and classes.",
            got=f"splits {', '.join(given)} beside {odd}",
            fix="Have either class folders, or only test, calibration, tune and train with class folders in each.",
        )
    if given and "test" not in given:
        raise DataError(f"There is no test split in {folder}.", got=", ".join(given), fix="Add a folder test.")
    parts: Mapping[SplitName, Path] = given or {"test": folder}
    found = {name: _class_folders(path) for name, path in parts.items()}
    seen = sorted({path.name for paths in found.values() for path in paths})
    label_of, names = _label_of(seen, manifest, classes, folder)
    pools: dict[SplitName, FolderPool] = {}
    for name, paths in found.items():
        files = [(file, label_of[path.name]) for path in paths for file in _images(path)]
        labels = np.array([label for _, label in files], np.int64) if manifest.task == "classification" else None
        pools[name] = FolderPool([file for file, _ in files], labels, reader, inputs[0], str(parts[name]))
    return pools, names


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _class_folders(folder: Path) -> list[Path]:
    below = _folders(folder)
    if not below:
        images = sum(path.suffix.lower() in _SUFFIXES for path in folder.iterdir())
        raise DataError(
            f"The folder {folder} has no class folders.",
            got=f"{images} images directly inside it" if images else "an empty folder",
            fix="Put the images of each class into a folder with the class's name.",
        )
    return below


def _images(folder: Path) -> list[Path]:
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES and not p.name.startswith("."))
    if not files:
        raise DataError(
            f"The class folder {folder} has no images.",
            got="an empty class",
            fix=f"Remove it, or add images ({', '.join(sorted(_SUFFIXES))}).",
        )
    return files


def _label_of(
    seen: list[str], manifest: Manifest, classes: int | None, folder: Path
) -> tuple[dict[str, int], tuple[str, ...]]:
    if manifest.task == "unlabelled":
        return dict.fromkeys(seen, 0), ()
    if manifest.labels or manifest.classes:
        known = manifest.labels or {name: index for index, name in enumerate(manifest.classes)}
        for name in seen:
            if name not in known:
                listed = ", ".join(nearest_first(name, known)[:10])
                raise DataError(
                    "A class folder is not in the manifest.", got=str(folder / name), fix=f"The manifest has {listed}."
                )
        return {name: known[name] for name in seen}, manifest.classes
    ask = "Say in the manifest classes: [...] in label order, or labels: {folder: index}."
    if classes is not None and classes != len(seen):
        raise DataError(
            "The model has another number of classes than there are class folders.",
            got=f"{len(seen)} folders in {folder}, {classes} classes",
            fix=ask,
        )
    if all(name.isdigit() for name in seen) and sorted(seen, key=int) != seen:
        raise DataError(
            "The class folders are numbers, whose order as text is another than as numbers.",
            got=", ".join(seen[:5]),
            fix=ask,
        )
    return {name: index for index, name in enumerate(seen)}, tuple(seen)


def _checked_bytes(path: Path) -> bytes:
    """The file's sha256, after it was decoded as cheaply as its format allows."""
    with opened(path) as image:
        try:
            image.draft(image.mode, (max(1, image.width // 8), max(1, image.height // 8)))
            image.load()
        except (OSError, SyntaxError, ValueError) as error:
            raise unreadable(path, error) from error
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
