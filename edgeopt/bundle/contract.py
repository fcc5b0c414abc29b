"""Whether arrays are what a model expects; a wrong answer is never given for a wrong question."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from itertools import permutations

import numpy as np

from edgeopt.bundle.manifest import Contract, InputRecord
from edgeopt.core.engine import Engine
from edgeopt.core.errors import DataError, nearest_first
from edgeopt.core.spec import Dim

__all__ = ["InputChecker"]

_log = logging.getLogger(__name__)

# By the transposition that would mend the array: what it looks like, what the model takes.
_LAYOUTS: dict[tuple[int, ...], tuple[str, str]] = {(0, 3, 1, 2): ("NHWC", "NCHW"), (0, 2, 3, 1): ("NCHW", "NHWC")}
_NUMBERS = "fiu"


class InputChecker:
    """Turns what a caller gives into one checked array per input name.

    Args:
        contract: What the model expects.
        engine: What it was compiled to; its dimensions bind, except for the batch.
    """

    def __init__(self, contract: Contract, engine: Engine) -> None:
        specs = {spec.name: spec.shape for spec in engine.inputs}
        self._inputs = {record.name: (record, specs.get(record.name, record.shape)) for record in contract.inputs}
        self._warned: set[str] = set()

    def __call__(self, x: np.ndarray | Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Check names, types, shapes and values, in this order.

        Raises:
            DataError: Something does not fit; the message says what to do.
        """
        arrays = self._by_name(x)
        sizes: dict[str, tuple[int, str]] = {}
        for name, (record, shape) in self._inputs.items():
            array = arrays[name]
            _check_dtype(record, array)
            _check_shape(record, shape, array)
            for dim, size in zip(("the batch", *shape[1:]), array.shape, strict=True):
                _check_same(sizes, dim, size, name)
            _check_finite(name, array)
            self._warn_of_range(record, array)
        return {name: np.ascontiguousarray(arrays[name]) for name in self._inputs}

    def _by_name(self, x: object) -> dict[str, np.ndarray]:
        names = list(self._inputs)
        if not isinstance(x, Mapping):
            if len(names) != 1:
                raise DataError(
                    "The model has several inputs.",
                    got=f"one {type(x).__name__}",
                    fix=f"Give a dict with {_listed(names)}.",
                )
            x = {names[0]: x}
        unknown = [str(name) for name in x if name not in self._inputs]
        missing = [name for name in names if name not in x]
        if unknown or missing:
            got = f"unknown: {_listed(unknown)}" if unknown else f"missing: {_listed(missing)}"
            known = nearest_first(unknown[0], names) if unknown else names
            raise DataError("The inputs' names do not fit the model.", got=got, fix=f"It takes {_listed(known)}.")
        for name, array in x.items():
            if not isinstance(array, np.ndarray):
                fix = "Give a NumPy array, e.g. numpy.asarray(x, dtype=…) or tensor.numpy()."
                raise DataError(f"Input {name!r} is not a NumPy array.", got=type(array).__name__, fix=fix)
        return dict(x)

    def _warn_of_range(self, record: InputRecord, array: np.ndarray) -> None:
        """Say once per input when values are far from all that the model was calibrated with."""
        if record.value_range is None or record.name in self._warned or array.dtype.kind not in _NUMBERS:
            return
        low, high = record.value_range
        seen_low, seen_high = float(array.min()), float(array.max())
        # One more range on either side is unusual data; beyond that it is most likely another preprocessing.
        if seen_low < low - (high - low) or seen_high > high + (high - low):
            self._warned.add(record.name)
            _log.warning(
                "Input %r has values from %.4g to %.4g, and the model was calibrated with %.4g to %.4g: "
                "is the preprocessing the same?%s",
                record.name,
                seen_low,
                seen_high,
                low,
                high,
                f" The bundle says: {record.preprocessing}" if record.preprocessing else "",
            )


def _check_dtype(record: InputRecord, array: np.ndarray) -> None:
    if array.dtype != np.dtype(record.dtype):
        fix = f"Convert it: x.astype(numpy.{record.dtype if record.dtype != 'bool' else 'bool_'})."
        if array.dtype == np.uint8 and record.dtype.startswith("float"):
            fix = f"These look like raw pixels: {_preprocessing(record)}, then x.astype(numpy.{record.dtype})."
        raise DataError(f"Input {record.name!r} must be {record.dtype}.", got=array.dtype, fix=fix)


def _check_shape(record: InputRecord, shape: tuple[Dim, ...], array: np.ndarray) -> None:
    """``shape``: the engine's; its first dimension is the batch, of any size here."""
    got = array.shape
    if len(got) != len(shape) or not _fits(shape[1:], got[1:]):
        wanted = ", ".join(str(dim) for dim in ("N", *shape[1:])[: len(shape)])
        layout = f" ({record.layout})" if record.layout else ""
        raise DataError(
            f"Input {record.name!r} must have the shape [{wanted}]{layout}.", got=list(got), fix=_shape_hint(shape, got)
        )
    if 0 in got:
        raise DataError(f"Input {record.name!r} is empty.", got=list(got), fix="Give at least one sample.")


def _shape_hint(shape: tuple[Dim, ...], got: tuple[int, ...]) -> str | None:
    """What the caller most likely meant, and the expression that mends it."""
    if len(got) == len(shape) - 1:
        if _fits(shape[1:], got):
            return "The batch dimension is missing: give x[numpy.newaxis]."
        order = _order(shape[1:], got)
        if order is not None:
            axes = ", ".join(str(axis - 1) for axis in order)
            return f"The batch dimension is missing: give x.transpose({axes})[numpy.newaxis]."
    if len(got) == len(shape):
        order = _order(shape[1:], got[1:])
        if order is not None:
            looks, takes = _LAYOUTS.get((0, *order), ("another order of dimensions", "the one above"))
            axes = ", ".join(str(axis) for axis in (0, *order))
            return f"This looks like {looks}, and the model takes {takes}: give x.transpose({axes})."
    return None


def _order(shape: tuple[Dim, ...], got: tuple[int, ...]) -> tuple[int, ...] | None:
    """The order of the axes of ``got``, counted from 1, that makes it fit; None where no order does."""
    if len(got) > 4:
        return None
    orders = permutations(range(1, len(got) + 1))
    return next((order for order in orders if _fits(shape, tuple(got[axis - 1] for axis in order))), None)


def _fits(shape: tuple[Dim, ...], got: tuple[int, ...]) -> bool:
    return len(shape) == len(got) and all(isinstance(d, str) or d == n for d, n in zip(shape, got, strict=True))


def _check_same(sizes: dict[str, tuple[int, str]], dim: Dim, size: int, name: str) -> None:
    """A dimension of one name has one size in all inputs."""
    if not isinstance(dim, str):
        return
    before, where = sizes.setdefault(dim, (size, name))
    if before != size:
        raise DataError(
            f"Inputs {where!r} and {name!r} must agree in {dim}.",
            got=f"{before} and {size}",
            fix="Give the same number in both.",
        )


def _check_finite(name: str, array: np.ndarray) -> None:
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return
    bad = int(array.size - np.isfinite(array).sum())
    first = tuple(int(axis[0]) for axis in np.nonzero(~np.isfinite(array)))
    raise DataError(
        f"Input {name!r} holds values that are not finite.",
        got=f"{bad} of {array.size}, the first ({array[first]}) at {list(first)}",
        fix="Find out where the preprocessing makes NaN or infinity.",
    )


def _preprocessing(record: InputRecord) -> str:
    """How raw data becomes this input, as far as the bundle knows."""
    if record.preprocessing:
        return f"the model was trained with {record.preprocessing}"
    if record.mean is not None and record.std is not None:
        return f"subtract the mean {list(record.mean)} and divide by {list(record.std)}, per channel"
    return "scale them as in training"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
