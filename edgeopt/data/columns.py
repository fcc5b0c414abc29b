"""Properties of samples by which a test split is told apart: from arrays beside the samples, or from a file of rows."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from edgeopt.core.errors import DataError, nearest_first
from edgeopt.core.slices import SliceColumn
from edgeopt.data.manifest import Column

__all__ = ["array_columns", "file_columns"]

_MOST_VALUES = 32
_FILE = "file"
_ENDINGS = (".csv", ".jsonl")


def array_columns(
    wanted: Sequence[Column], arrays: Mapping[str, Any], count: int, where: str
) -> dict[str, SliceColumn]:
    """Columns from one array each, one value per sample of the test data.

    Args:
        wanted: What the manifest lists.
        arrays: By name: strings of fixed width, whole numbers, truth values; other numbers where they are binned. An empty
            string or NaN: the sample has none.
        count: How many samples there are.
        where: How an error names what holds the arrays.

    Raises:
        DataError: A column is missing, has another length, another type, or too many values.
    """
    found = {}
    for column in wanted:
        name = f"{column.name} of {where}"
        if column.name not in arrays:
            raise DataError(
                f"The column {column.name!r} that the manifest lists is not in {where}.",
                got=f"arrays {', '.join(map(str, arrays)) or 'none'}",
                fix=f"Save {column.name}=…, one value per sample of x, or leave it out of columns.",
            )
        values = np.asarray(arrays[column.name])
        if values.dtype.kind not in "Ubiuf":
            raise DataError(
                f"The column {name} holds neither text nor numbers.",
                got=f"dtype {values.dtype}",
                fix="Save an array of strings, np.array([...]) of one width, or of whole numbers.",
            )
        if values.shape != (count,):
            raise DataError(
                f"The column {name} has not one value per sample.",
                got=f"shape {list(values.shape)} for {count} samples of x",
                fix="Save one value per sample of x, in its order.",
            )
        found[column.name] = _coded(column, values, name)
    return found


def file_columns(wanted: Sequence[Column], file: Path, names: Mapping[str, int], count: int) -> dict[str, SliceColumn]:
    """Columns from a CSV file with a head line, or from JSON lines, whose key ``file`` names the sample.

    Args:
        wanted: What the manifest lists.
        names: File name → place among the test samples; -1 for samples of other splits, which are passed over.
        count: How many test samples there are. Those that the file does not name have no value.

    Raises:
        DataError: The file cannot be read, names a sample that is not there or one twice, or lacks a column.
    """
    texts: dict[str, list[str]] = {column.name: [""] * count for column in wanted}
    seen: set[str] = set()
    for line, row in _rows(file):
        sample = row.get(_FILE)
        place = f"line {line} of {file.name}"
        if not isinstance(sample, str) or sample not in names:
            known = f"; the nearest is {nearest_first(str(sample), names)[0]}" if names else ""
            raise DataError(
                f"The column file {file.name} names a sample that is not there.",
                got=f"{sample!r} in {place}",
                fix=f"Name files as seen from the data's folder, CLASS/NAME.png{known}.",
            )
        if sample in seen:
            raise DataError(f"The column file {file.name} names a sample twice.", got=f"{sample!r} in {place}")
        seen.add(sample)
        for column in wanted:
            if column.name not in row:
                raise DataError(
                    f"The column {column.name!r} that the manifest lists is not in {file.name}.",
                    got=f"{', '.join(row)} in {place}",
                    fix="Add it, or leave it out of columns.",
                )
            if names[sample] >= 0:
                texts[column.name][names[sample]] = _text(row[column.name], column.name, place)
    return {
        column.name: _coded(column, np.array(texts[column.name]), f"{column.name} of {file.name}") for column in wanted
    }


def _rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and content of each row."""
    if file.suffix not in _ENDINGS:
        raise DataError("A column file is CSV or JSON lines.", got=file.name, fix="Name it .csv or .jsonl.")
    try:
        with file.open(newline="", encoding="utf-8-sig") as text:
            yield from _cells(text) if file.suffix == ".csv" else _objects(text)
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(
            "The column file cannot be read.",
            got=f"{file} ({error})",
            fix="CSV: a head line file,NAME,… and a row per sample; JSON lines: an object per line with the key file.",
        ) from error


def _cells(text: TextIO) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(text, strict=True)
    if _FILE not in (reader.fieldnames or ()):
        raise ValueError(f"its head line has no column {_FILE!r}")
    for row in reader:
        if None in row or None in row.values():
            raise ValueError(f"line {reader.line_num} has another number of cells than the head line")
        yield reader.line_num, row


def _objects(text: TextIO) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {number} is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise ValueError(f"line {number} is no JSON object")  # noqa: TRY004  as every fault of the file
        yield number, row


def _text(value: Any, name: str, place: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str | int | float):
        raise DataError(
            f"A value of the column {name!r} is no text or number.", got=f"{type(value).__name__} in {place}"
        )
    return str(value)


def _coded(column: Column, values: np.ndarray, where: str) -> SliceColumn:
    if column.bins is not None:
        return _binned(values, column.bins, where)
    missing = np.isnan(values) if values.dtype.kind == "f" else values == "" if values.dtype.kind == "U" else None
    there = np.ones(len(values), bool) if missing is None else ~missing
    kinds = np.unique(values[there])
    if not len(kinds):
        raise DataError(f"The column {where} is empty.", got=f"no value for {len(values)} samples")
    if len(kinds) > _MOST_VALUES:
        numeric = values.dtype.kind != "U" or _numbers(values) is not None
        name = column.name
        raise DataError(
            f"The column {where} has too many values to tell samples apart by.",
            got=f"{len(kinds)} different ones, {kinds[0]} to {kinds[-1]}; at most {_MOST_VALUES} make slices",
            fix=f"Bin it by its quantiles: columns: [{{name: {name}, bins: 4}}]."
            if numeric
            else "Group its values, or leave it out of columns.",
        )
    if values.dtype.kind == "U" and (numbers := _numbers(kinds)) is not None:
        kinds = kinds[np.argsort(numbers, kind="stable")]  # 2 before 10
    place = {kind: index for index, kind in enumerate(kinds.tolist())}
    codes = np.array([place[v] if ok else -1 for v, ok in zip(values.tolist(), there, strict=True)], np.int32)
    return SliceColumn(codes=codes, values=tuple(_shown(kind) for kind in kinds.tolist()))


def _binned(values: np.ndarray, bins: int, where: str) -> SliceColumn:
    """Bins with about as many samples each; equal values are never torn apart. Each is named by the values it has."""
    numbers = _numbers(values)
    if numbers is None:
        raise DataError(f"The column {where} is to be binned, and holds no numbers.", fix="Leave bins out.")
    there = ~np.isnan(numbers)
    if np.isinf(numbers).any() or not there.any():
        raise DataError(f"The column {where} cannot be binned.", got="infinite values" if there.any() else "no value")
    edges = np.unique(np.quantile(numbers[there], np.linspace(0, 1, bins + 1)[1:-1]))
    drawers = np.searchsorted(edges, numbers, side="left")
    used = np.unique(drawers[there])
    if len(used) < 2:
        raise DataError(
            f"The column {where} makes no bins.",
            got=f"{bins} asked for, and most samples have the value {_shown(float(np.median(numbers[there])))}",
            fix="Ask for more bins, or leave the column out.",
        )
    codes = np.where(there, np.searchsorted(used, drawers), -1).astype(np.int32)
    spans = [numbers[codes == code] for code in range(len(used))]
    return SliceColumn(
        codes=codes, values=tuple(f"{_shown(s.min().item())} to {_shown(s.max().item())}" for s in spans)
    )


def _numbers(values: np.ndarray) -> np.ndarray | None:
    """Float64, NaN where there is none; None where a value is no number."""
    if values.dtype.kind != "U":
        return values.astype(np.float64)
    try:
        return np.array([float(text) if text else math.nan for text in values.tolist()])
    except ValueError:
        return None


def _shown(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
