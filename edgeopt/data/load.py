"""One entry for every kind of data: what the user names becomes checked, disjoint, streamed splits."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt.core.errors import DataError, nearest_first
from edgeopt.core.events import ProgressListener, ignore_progress
from edgeopt.core.fingerprint import hash_file, hash_json
from edgeopt.core.slices import SliceColumn
from edgeopt.core.spec import TensorSpec
from edgeopt.data.arrays import MemoryRows, Rows
from edgeopt.data.columns import array_columns, file_columns
from edgeopt.data.contract import Dataset, Decoder, InputContract, Split, SplitName, Task
from edgeopt.data.folder import FolderPool, folder_pools
from edgeopt.data.manifest import Manifest, Origin, Preprocessing, SplitPlan, read_manifest
from edgeopt.data.mapped import call_factory, mapped_pools, named_object
from edgeopt.data.npz import keyed_pools, npz_pools
from edgeopt.data.preprocess import Affine, affine
from edgeopt.data.scan import Pool, Scan
from edgeopt.data.shipped import shipped_sets
from edgeopt.data.splits import make_splits, overlaps
from edgeopt.data.targets import TargetRule, target_classes

__all__ = ["check_data", "load_data"]

_FACTORY = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_ARRAY_KEY = re.compile(r"[xy](_|/|$)")
_INSIDE = "manifest.yaml"
_MANIFESTS = (".yaml", ".yml")
_FORMS = "a manifest (.yaml), an .npz, a folder of class folders, package.module:callable, or the name of a shipped set"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """Pools that are open and whose shapes and dtypes fit, but whose values nobody has looked at."""

    name: str
    pools: Mapping[SplitName, Pool]
    classes: tuple[str, ...] = ()
    manifest: Manifest | None = None
    decoder: Decoder | None = None
    columns: Mapping[str, SliceColumn] = field(default_factory=dict)


def load_data(
    spec: str | Path | Any,
    *,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec] = (),
    seed: int = 0,
    progress: ProgressListener = ignore_progress,
) -> Dataset:
    """Open data, check all of it against the model, and split it.

    Args:
        spec: A manifest, an ``.npz``, a folder of class folders that holds a ``manifest.yaml``,
            ``package.module:callable``, the name of a shipped set; or in memory: a dict of arrays named as in an
            ``.npz``, a map-style data set, a dict of split name → data set, a callable that returns one of these.
        inputs: The model's inputs, in order.
        outputs: The model's outputs: targets must fit the first one, which says how many classes there are.
        seed: For the splits and their order; a manifest's own seed goes before it.
        progress: Hears how far the checking pass is.

    Raises:
        DataError: The data is not there, cannot be read, or does not fit the model.
    """
    opened = _open(spec, inputs, outputs)
    manifest = opened.manifest
    task = _task(opened)
    pools = opened.pools
    classes = target_classes(task, outputs, opened.classes)
    scans = {name: pool.scan(classes, progress) for name, pool in pools.items()}
    plan = manifest.splits if manifest else SplitPlan()
    seed = seed if plan.seed is None else plan.seed
    splits = {
        name: replace(split, columns=_in_split(opened.columns, split)) if split.source is pools["test"] else split
        for name, split in make_splits(pools, scans, plan=plan, seed=seed, inputs=inputs).items()
    }
    contracts = _contracts(inputs, splits["calibration"], scans, manifest)
    return Dataset(
        name=opened.name,
        task=task,
        splits=splits,
        fingerprint=hash_json({name: split.fingerprint for name, split in splits.items()}),
        classes=opened.classes,
        contract=contracts[inputs[0].name],
        contracts=contracts,
        licence=manifest.license if manifest else None,
        provenance=manifest.provenance if manifest else None,
        events=overlaps(splits, pools, scans),
        metrics=manifest.metrics if manifest else (),
        decoder=opened.decoder,
    )


def check_data(spec: str | Path | Any) -> None:
    """Whether there is such data, and its manifest (where it has one) is well formed; the model is not needed for that.

    Raises:
        DataError: As ``load_data`` raises it for what is not there or is of no known kind.
    """
    if isinstance(spec, str | Path):
        place = _locate(spec)
        if isinstance(place, Path) and place.suffix in _MANIFESTS:
            read_manifest(place)


def _open(spec: Any, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> _Opened:
    rule = TargetRule(output=outputs[0] if outputs else None)
    if not isinstance(spec, str | Path):
        return _open_object(spec, inputs, rule)
    place = _locate(spec)
    if isinstance(place, str):
        return _Opened(name=place, pools=mapped_pools(call_factory(place), rule, place, inputs=inputs, values=None))
    if place.suffix in _MANIFESTS:
        return _open_manifest(place, inputs, outputs)
    return _Opened(name=place.stem, pools=npz_pools(place, rule, inputs=inputs, values=None)[0])


def _locate(spec: str | Path) -> Path | str:
    """The manifest or ``.npz`` that ``spec`` means, or the factory's name."""
    text, path = str(spec), Path(spec).expanduser()
    shipped = shipped_sets()
    if path.is_dir() and (text not in shipped or (path / _INSIDE).is_file()):
        path = _manifest_of(path)
    if path.is_file() and path.suffix in (*_MANIFESTS, ".npz"):
        return path
    if _FACTORY.fullmatch(text):
        return text
    if text in shipped:
        return shipped[text]
    known = ", ".join(nearest_first(text, shipped))
    raise DataError(
        "The data's kind is not known." if path.exists() else "There is no such data.",
        got=text,
        fix=f"Give {_FORMS}: {known}.",
    )


def _open_object(spec: Any, inputs: Sequence[TensorSpec], rule: TargetRule) -> _Opened:
    made = spec() if callable(spec) and not hasattr(spec, "__getitem__") else spec
    if isinstance(made, Mapping) and made and all(_ARRAY_KEY.match(str(key)) for key in made):
        rows: dict[str, Rows] = {str(key): MemoryRows(_numbers(str(key), value)) for key, value in made.items()}
        return _Opened(name="arrays", pools=keyed_pools(rows, rule, "the arrays", inputs=inputs, values=None))
    if isinstance(made, tuple):
        raise DataError("A tuple is no data set.", got=f"{len(made)} items", fix="Give a dict: {'x': x, 'y': y}.")
    name = type(made).__name__
    return _Opened(name=name, pools=mapped_pools(made, rule, name, inputs=inputs, values=None))


def _open_manifest(path: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> _Opened:
    manifest = read_manifest(path)
    how, origin = manifest.preprocessing, manifest.source
    _check_layout(how, inputs)
    if origin.folder is not None:
        classes = target_classes(manifest.task, outputs, manifest.classes)
        folder = _beside(path, origin.folder, "folder")
        try:
            pools, names = folder_pools(folder, manifest, inputs=inputs, classes=classes)
        except OSError as error:
            raise DataError("The folder of images cannot be read.", got=f"{folder} ({error})") from error
        columns = _folder_columns(path, folder, manifest, pools)
        return _Opened(name=manifest.name, pools=pools, classes=names, manifest=manifest, columns=columns)
    values = _values(how, inputs)
    rule = TargetRule(
        task=manifest.task,
        output=outputs[0] if outputs else None,
        ignore_index=manifest.ignore_index,
        decoded=manifest.decoder is not None,
        declared=True,
    )
    arrays: Mapping[SplitName, Pool]
    found: Mapping[str, Any]
    if origin.npz is not None:
        listed = [column.name for column in manifest.columns]
        arrays, found = npz_pools(_pinned(path, origin), rule, inputs=inputs, values=values, columns=listed)
        where = origin.npz
    else:
        place = origin.dataset or ""
        if not _FACTORY.fullmatch(place):
            raise DataError("A dataset is named package.module:callable.", got=f"{place!r} in {path}")
        made = call_factory(place, path.resolve().parent)
        arrays = mapped_pools(made, rule, place, inputs=inputs, values=values)
        found = _mapped_columns(made, place) if manifest.columns else {}
        where = f"{place}'s columns"
    return _Opened(
        name=manifest.name,
        pools=arrays,
        classes=manifest.classes,
        manifest=manifest,
        decoder=_decoder(path, manifest),
        columns=array_columns(manifest.columns, found, len(arrays["test"]), where),
    )


def _mapped_columns(made: Any, place: str) -> Mapping[str, Any]:
    test = made["test"] if isinstance(made, Mapping) else made
    columns = getattr(test, "columns", None)
    if not isinstance(columns, Mapping):
        raise DataError(
            f"The manifest lists columns, and the data set {place} has none.",
            got=f"an attribute columns of type {type(columns).__name__}",
            fix="Give it the attribute columns: a dict of name → one value per sample.",
        )
    return columns


def _folder_columns(
    path: Path, folder: Path, manifest: Manifest, pools: Mapping[SplitName, FolderPool]
) -> dict[str, SliceColumn]:
    if manifest.columns_from is None:
        return {}
    file = _beside(path, manifest.columns_from, "column file")
    names = {
        image.relative_to(folder).as_posix(): index if name == "test" else -1
        for name, pool in pools.items()
        for index, image in enumerate(pool.paths)
    }
    return file_columns(manifest.columns, file, names, len(pools["test"]))


def _in_split(columns: Mapping[str, SliceColumn], split: Split) -> dict[str, SliceColumn]:
    return {name: SliceColumn(codes=c.codes[split.indices], values=c.values) for name, c in columns.items()}


def _decoder(path: Path, manifest: Manifest) -> Decoder | None:
    if manifest.decoder is None:
        return None
    found = named_object(manifest.decoder, path.resolve().parent)
    if not callable(found):
        raise DataError("The decoder is no callable.", got=f"{manifest.decoder} in {path}: {type(found).__name__}")
    decoder: Decoder = found
    return decoder


def _manifest_of(folder: Path) -> Path:
    path = folder / _INSIDE
    if not path.is_file():
        raise DataError(
            f"The folder has no {_INSIDE}, and edgeopt guesses no preprocessing.",
            got=str(folder),
            fix="Write into it: schema_version: 1, name: NAME, task: classification, source: {folder: .}, "
            "preprocessing: {mode: RGB, layout: NCHW, scale: 1/255, resize: 256, interpolation: bilinear, crop: 224} "
            "with the numbers that the model was trained with.",
        )
    return path


def _beside(manifest: Path, name: str, kind: str) -> Path:
    path = manifest.parent / Path(name).expanduser()
    if not (path.is_dir() if kind == "folder" else path.is_file()):
        raise DataError(f"The {kind} that the manifest {manifest.name} names is not there.", got=str(path))
    return path


def _pinned(manifest: Path, origin: Origin) -> Path:
    path = _beside(manifest, origin.npz or "", "file")
    if origin.sha256 is not None and (got := hash_file(path)) != origin.sha256:
        raise DataError(
            f"The data file is not the one that the manifest {manifest.name} describes.",
            got=f"{path} with sha256 {got}",
            fix=f"Restore the file with sha256 {origin.sha256}, or correct the manifest.",
        )
    return path


def _numbers(key: str, value: Any) -> np.ndarray:
    array = value.detach().cpu().numpy() if hasattr(value, "detach") else value
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "biuf":
        raise DataError(f"The data under {key!r} is not an array of numbers.", got=type(value).__name__)
    return array


def _values(how: Preprocessing, inputs: Sequence[TensorSpec]) -> Affine | None:
    if len(inputs) != 1 and (how.scale, how.mean, how.std) != (None, None, None):
        raise DataError(
            "A manifest's scale, mean and std are for models with one input.",
            got=f"a model with inputs {', '.join(spec.name for spec in inputs)}",
            fix="Store the data as the model takes it.",
        )
    return affine(how, inputs[0]) if len(inputs) == 1 else None


def _check_layout(how: Preprocessing, inputs: Sequence[TensorSpec]) -> None:
    if how.layout is not None and len(how.layout) != len(inputs[0].shape):
        raise DataError(
            "The manifest's layout does not fit the model's input.",
            got=f"layout {how.layout} for {inputs[0]}",
            fix="Have one letter per dimension of the input.",
        )


def _task(opened: _Opened) -> Task:
    labelled = opened.pools["test"].labelled
    asked = opened.manifest.task if opened.manifest else None
    if asked not in (None, "unlabelled") and not labelled:
        raise DataError(
            f"The manifest says task: {asked}, but the test data has no labels.",
            got=opened.pools["test"].where,
            fix="Add the labels, or say task: unlabelled; then the accuracy is not measured.",
        )
    task: Task = asked or ("classification" if labelled else "unlabelled")
    for name, pool in opened.pools.items():
        if not len(pool):
            raise DataError(
                f"Empty split: {name} has no samples.",
                got=f"0 samples in {pool.where}",
                fix="Give it samples, or leave it out: what is missing is split off test."
                if name != "test"
                else "Give the labelled samples that the artifact is to be judged on.",
            )
        if task != "unlabelled" and name in ("tune", "train") and not pool.labelled:
            raise DataError(
                f"The {name} split has no labels.", got=pool.where, fix="Add them; only calibration does without."
            )
    return task


def _contracts(
    inputs: Sequence[TensorSpec], calibration: Split, scans: Mapping[SplitName, Scan], manifest: Manifest | None
) -> dict[str, InputContract]:
    """What each input means; its range is that of the calibration samples."""
    lows, highs = _range(calibration, scans)
    how = manifest.preprocessing if manifest else Preprocessing()
    return {
        spec.name: InputContract(
            layout=how.layout if position == 0 and how.layout else ("NC" if len(spec.shape) == 2 else None),
            value_range=(float(lows[position]), float(highs[position])),
            scale=None if how.scale is None else str(how.scale),
            mean=how.mean,
            std=how.std,
            preprocessing=how.sentence(),
        )
        for position, spec in enumerate(inputs)
    }


def _range(calibration: Split, scans: Mapping[SplitName, Scan]) -> tuple[np.ndarray, np.ndarray]:
    origin: SplitName = "calibration" if "calibration" in scans else "train" if "train" in scans else "test"
    scan = scans[origin]
    if scan.lows is not None and scan.highs is not None:
        return scan.lows[calibration.indices].min(axis=0), scan.highs[calibration.indices].max(axis=0)
    low, high = np.array([np.inf]), np.array([-np.inf])
    for batch in calibration.batches(8):
        low, high = np.minimum(low, batch.inputs[0].min()), np.maximum(high, batch.inputs[0].max())
    return low, high
