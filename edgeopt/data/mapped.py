"""The user's own map-style data sets: objects with ``len`` and ``[index]``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt.core.errors import DataError, nearest_first
from edgeopt.core.events import ProgressListener
from edgeopt.core.spec import TensorSpec
from edgeopt.data.contract import Batch, SplitName
from edgeopt.data.fit import check_dtype, check_shape
from edgeopt.data.preprocess import Affine
from edgeopt.data.scan import Scan, scan_samples
from edgeopt.data.targets import TargetRule, stack_boxes

__all__ = ["MappedPool", "call_factory", "mapped_pools", "named_object"]

_SPLITS: tuple[SplitName, ...] = ("test", "calibration", "tune", "train")


class MappedPool:
    """A data set whose items are ``(x, y)``, ``((x1, x2), y)``, or ``x`` alone where there are no targets.

    Args:
        dataset: Has ``len`` and ``[index]``; ``x`` is an array or tensor without the batch dimension, ``y``
            an integer, or an array as the task has it; boxes [M, 5] need not be equally many.
        rule: What the targets mean.
        where: How an error names it.
    """

    def __init__(
        self, dataset: Any, rule: TargetRule, inputs: Sequence[TensorSpec], values: Affine | None, where: str
    ) -> None:
        self._dataset, self._rule, self._inputs, self._values = dataset, rule, tuple(inputs), values
        self.where = where
        if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
            raise DataError(
                f"The data of {where} is no map-style data set.",
                got=type(dataset).__name__,
                fix="Return an object with len(d) and d[i], or a dict of split name → such an object.",
            )
        self._length = len(dataset)
        self.labelled = self._length > 0 and self._first().targets is not None

    def __len__(self) -> int:
        return self._length

    def read(self, indices: Sequence[int]) -> Batch:
        """Get items and stack them.

        Raises:
            DataError: An item has another form than the contract's, or the data set raised.
        """
        items = [self._item(int(index)) for index in indices]
        columns = zip(*(arrays for arrays, _ in items), strict=True)
        try:
            inputs = tuple(np.stack(column) for column in columns)
        except ValueError as error:
            raise DataError(
                f"The samples of {self.where} differ in shape.",
                got=" and ".join(sorted({str(list(arrays[0].shape)) for arrays, _ in items})),
                fix="Pad or crop them to one shape.",
            ) from error
        targets = [target for _, target in items]
        if self._values is not None:
            inputs = tuple(self._values(array) for array in inputs)
        known = [target for target in targets if target is not None]
        if len(known) not in (0, len(items)):
            raise DataError(f"Some samples of {self.where} have a label and some have none.")
        return Batch(inputs=inputs, targets=self._stacked(known) if known else None)

    def scan(self, classes: int | None, progress: ProgressListener) -> Scan:
        """Check and fingerprint every item."""
        return scan_samples(self, self._rule, where=self.where, classes=classes, progress=progress)

    def _stacked(self, targets: Sequence[np.ndarray]) -> np.ndarray:
        if self._rule.task == "detection":
            return stack_boxes(targets)
        try:
            return self._rule.ready(np.stack(targets))
        except ValueError as error:
            raise DataError(
                f"The targets of {self.where} differ in shape.",
                got=" and ".join(sorted({str(list(target.shape)) for target in targets})),
                fix="Pad or crop them to one shape, that of the model's output.",
            ) from error

    def _first(self) -> Batch:
        """The first item, read twice: augmented data would compare the artifact and FP32 on unlike samples."""
        first, again = self.read([0]), self.read([0])
        if any(a.tobytes() != b.tobytes() for a, b in zip(first.inputs, again.inputs, strict=True)):
            raise DataError(
                f"The data of {self.where} changes from one reading to the next.",
                got="two different values of item 0",
                fix="Turn random augmentation off: the artifact is compared with FP32 on identical samples.",
            )
        return first

    def _item(self, index: int) -> tuple[tuple[np.ndarray, ...], np.ndarray | None]:
        where = f"{self.where}[{index}]"
        try:
            item = self._dataset[index]
        except Exception as error:  # the user's code may raise anything
            raise DataError(
                f"The data set raised while reading {where}.", got=f"{type(error).__name__}: {error}"
            ) from error
        x, y = item if isinstance(item, tuple | list) and len(item) == 2 else (item, None)
        parts = tuple(x) if isinstance(x, tuple | list) else (x,)
        arrays = [_array(part) for part in parts]
        form = "(x, y)" if len(self._inputs) == 1 else f"(({', '.join(s.name for s in self._inputs)}), y)"
        if len(arrays) != len(self._inputs) or any(array is None for array in arrays):
            raise DataError(
                f"The sample {where} has the wrong form.",
                got=_form(item),
                fix=f"It is {form}: NumPy arrays or tensors without the batch dimension, and the label or target.",
            )
        good = tuple(array for array in arrays if array is not None)
        for array, spec in zip(good, self._inputs, strict=True):
            check_dtype(array.dtype, spec, where, converts=self._values is not None)
            check_shape(array.shape, spec, where)
        if y is None or self._rule.task == "unlabelled":
            return good, None
        target = _array(np.asarray(y) if isinstance(y, int | float | np.generic) else y)
        if target is None:
            raise DataError(
                f"The {'label' if self._rule.task == 'classification' else 'target'} of {where} is no number or array.",
                got=_form(y),
                fix="Give NumPy arrays, tensors or plain numbers; x alone where there is none.",
            )
        self._rule.check_form(target.dtype, target.shape, where)
        return good, target


def mapped_pools(
    made: Any, rule: TargetRule, where: str, *, inputs: Sequence[TensorSpec], values: Affine | None
) -> dict[SplitName, MappedPool]:
    """Wrap a data set (the test split), or a dict of split name → data set.

    Raises:
        DataError: A split is unknown or missing, two splits are one object, or it is no map-style data set.
    """
    if not isinstance(made, Mapping):
        return {"test": MappedPool(made, rule, inputs, values, where)}
    for name in made:
        if name not in _SPLITS:
            raise DataError(
                f"The data of {where} has an unknown split.",
                got=repr(name),
                fix=f"Known: {', '.join(nearest_first(str(name), _SPLITS))}.",
            )
    if "test" not in made:
        raise DataError(f"The data of {where} has no test split.", got=", ".join(made) or "an empty dict")
    if len({id(dataset) for dataset in made.values()}) < len(made):
        raise DataError(
            f"Two splits of {where} are one and the same data set.",
            got=", ".join(made),
            fix="Splits are disjoint: give each its own samples, or only test, and the others are split off it.",
        )
    return {name: MappedPool(made[name], rule, inputs, values, f"{where} ({name})") for name in _SPLITS if name in made}


def call_factory(place: str, beside: Path | None = None) -> Any:
    """Import ``package.module:callable`` and call it without arguments. The current folder can be imported from.

    Args:
        beside: Another folder to import from: the manifest's.

    Raises:
        DataError: The module or the callable is not there, or it raised.
    """
    with _importable(beside):
        found = _imported(place)
        if not callable(found):
            return found
        try:
            return found()
        except Exception as error:  # the user's code may raise anything
            raise DataError(f"{place} raised.", got=f"{type(error).__name__}: {error}") from error


def named_object(place: str, beside: Path | None = None) -> Any:
    """Import what ``package.module:attribute`` names, without calling it; as ``call_factory`` otherwise."""
    with _importable(beside):
        return _imported(place)


@contextmanager
def _importable(beside: Path | None) -> Iterator[None]:
    extra = [str(path) for path in (beside, Path.cwd()) if path is not None and str(path) not in sys.path]
    sys.path.extend(extra)
    try:
        yield
    finally:
        for path in extra:
            sys.path.remove(path)


def _imported(place: str) -> Any:
    module_name, _, attribute = place.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:  # importing runs the user's code
        raise DataError(
            "The data's module cannot be imported.",
            got=f"{place} ({type(error).__name__}: {error})",
            fix="Write package.module:callable, importable from the current folder or installed.",
        ) from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            names = [name for name in vars(found) if callable(getattr(found, name)) and not name.startswith("_")]
            raise DataError(
                f"The module {module_name} has no {attribute}.",
                got=place,
                fix=f"It has {', '.join(nearest_first(part, names)[:5]) or 'no callable'}.",
            )
        found = getattr(found, part)
    return found


def _array(value: Any) -> np.ndarray | None:
    """An array of numbers: NumPy's, or a tensor's by duck typing, so that torch is not imported here."""
    if hasattr(value, "detach") and hasattr(value, "numpy"):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return value
    return None


def _form(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"({', '.join(_form(part) for part in value[:6])})"
    array = _array(value)
    return type(value).__name__ if array is None else f"{array.dtype}{list(array.shape)}"
