"""``.npz`` files, read by rows. Pickled content is never loaded."""

from __future__ import annotations

import os
import re
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from edgeopt.core.errors import DataError, nearest_first
from edgeopt.core.spec import TensorSpec
from edgeopt.data.arrays import ArrayPool, FileRows, Rows, array_pool
from edgeopt.data.contract import SplitName
from edgeopt.data.preprocess import Affine
from edgeopt.data.targets import TargetRule

__all__ = ["keyed_pools", "npz_pools"]

_SPLITS: tuple[SplitName, ...] = ("calibration", "tune", "train")
_KEY = re.compile(r"(?P<kind>[xy])(_(?P<split>calibration|tune|train))?(/(?P<input>.+))?")
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_COPY_BYTES = 1 << 20


def npz_pools(
    path: Path,
    rule: TargetRule,
    *,
    inputs: Sequence[TensorSpec],
    values: Affine | None,
    columns: Sequence[str] = (),
) -> tuple[dict[SplitName, ArrayPool], dict[str, np.ndarray]]:
    """Open an ``.npz``: ``x``, ``y`` are the test split; ``x_calibration``, ``x_tune``, ``x_train`` (with ``y_…``) others.

    A model with several inputs has one array each: ``x/ids``, ``x/mask``, ``x_calibration/ids``, … An uncompressed
    array is read from the file by rows; a compressed one is unpacked once, into an unnamed temporary file.

    Args:
        columns: Names of further arrays, which are read whole: text is welcome there.

    Returns:
        The splits, and those of ``columns`` that are there.

    Raises:
        DataError: It is no ``.npz``, holds pickled objects or unknown keys, or its arrays do not fit the model.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            rows: dict[str, Rows] = {}
            for member in archive.infolist():
                key = member.filename.removesuffix(".npy")
                if member.is_dir():
                    continue
                where, kinds = f"{key} of {path.name}", "Ubiuf" if key in columns else "biuf"
                rows[key if key in columns else _checked_key(key, path.name)] = _open_member(
                    archive, member, path, where, kinds
                )
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(
            "The data file is no readable .npz.", got=f"{path} ({error})", fix="Save it with np.savez(file, x=…, y=…)."
        ) from error
    beside = {key: rows.pop(key) for key in columns if key in rows}
    pools = keyed_pools(rows, rule, path.name, inputs=inputs, values=values)
    return pools, {key: array.read(range(array.shape[0] if array.shape else 0)) for key, array in beside.items()}


def keyed_pools(
    arrays: dict[str, Rows], rule: TargetRule, where: str, *, inputs: Sequence[TensorSpec], values: Affine | None
) -> dict[SplitName, ArrayPool]:
    """Sort arrays named as in an ``.npz`` into splits.

    Raises:
        DataError: A key is unknown or missing, or the arrays do not fit the model.
    """
    for key in arrays:
        _checked_key(key, where)
    pools: dict[SplitName, ArrayPool] = {}
    splits: tuple[tuple[SplitName, str], ...] = (("test", ""), *((name, f"_{name}") for name in _SPLITS))
    for split, suffix in splits:
        mine = {k: v for k, v in arrays.items() if k == f"x{suffix}" or k.startswith(f"x{suffix}/")}
        targets = arrays.get(f"y{suffix}")
        if not mine and targets is not None:
            raise DataError(f"There are labels without samples in {where}.", got=f"y{suffix} without x{suffix}")
        if not mine and split == "test":
            raise DataError(
                f"There is no test data in {where}.",
                got=f"arrays {', '.join(arrays) or 'none'}",
                fix="Save the samples to test on as x, with their labels as y.",
            )
        if mine:
            named = _in_order(mine, f"x{suffix}", where, inputs)
            ignored = targets is None or rule.task == "unlabelled"
            paired = None if ignored else (f"y{suffix} of {where}", arrays[f"y{suffix}"])
            pools[split] = array_pool(named, paired, rule, inputs=inputs, values=values)
    return pools


def _in_order(mine: dict[str, Rows], prefix: str, where: str, inputs: Sequence[TensorSpec]) -> list[tuple[str, Rows]]:
    if set(mine) == {prefix} and len(inputs) == 1:
        return [(f"{prefix} of {where}", mine[prefix])]
    wanted = [f"{prefix}/{spec.name}" for spec in inputs]
    if set(mine) != set(wanted):
        raise DataError(
            f"The arrays in {where} are not the model's inputs.",
            got=f"{', '.join(mine)}, where the model takes {', '.join(spec.name for spec in inputs)}",
            fix=f"Save one array per input: {', '.join(wanted)}.",
        )
    return [(f"{key} of {where}", mine[key]) for key in wanted]


def _checked_key(key: str, where: str) -> str:
    """Refuse what is none of our keys: where ``x_calib`` was ignored, its samples would be split off in silence."""
    match = _KEY.fullmatch(key)
    if match is None or (match["kind"] == "y" and match["input"]):
        known = ["x", "y", *(f"{kind}_{split}" for split in _SPLITS for kind in "xy")]
        raise DataError(
            f"There is an unknown array in {where}.",
            got=repr(key),
            fix=f"Did you mean {nearest_first(key, known)[0]}? Known: {', '.join(known)}; x/NAME for several inputs. "
            "List properties of the samples in a manifest, columns: [NAME]; leave everything else out.",
        )
    return key


def _open_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path, where: str, kinds: str) -> FileRows:
    if member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1:
        with path.open("rb") as file:
            file.seek(member.header_offset)
            head = file.read(_LOCAL_HEADER.size)
            if len(head) < _LOCAL_HEADER.size or head[:4] != b"PK\x03\x04":
                raise zipfile.BadZipFile(f"the member {member.filename} has no header")
            *_, name_length, extra_length = _LOCAL_HEADER.unpack(head)
            start = member.header_offset + _LOCAL_HEADER.size + name_length + extra_length
            return _rows(file, start, member.file_size, where, kinds)
    try:
        with tempfile.TemporaryFile() as unpacked, archive.open(member) as packed:
            shutil.copyfileobj(packed, unpacked, _COPY_BYTES)
            unpacked.flush()
            return _rows(unpacked, 0, member.file_size, where, kinds)
    except OSError as error:
        raise DataError(
            f"The compressed array {where} cannot be unpacked.",
            got=f"{member.file_size / 2**20:.0f} MiB into {tempfile.gettempdir()} ({error})",
            fix="Set TMPDIR to a folder with enough space, or save with np.savez instead of np.savez_compressed.",
        ) from error


def _rows(file: BinaryIO, start: int, size: int, where: str, kinds: str) -> FileRows:
    """The array that starts at ``start`` and, header included, is ``size`` bytes long."""
    file.seek(start)
    try:
        version = npy.read_magic(file)
        reader = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = reader(file)
    except ValueError as error:
        raise DataError(f"The array {where} is damaged.", got=str(error).split("\n")[0]) from error
    if dtype.hasobject:
        raise DataError(
            f"The array {where} holds pickled Python objects, which could run code when loaded.",
            got=f"dtype {dtype}",
            fix="Save plain numbers of one shape; np.savez pickles ragged lists and object arrays.",
        )
    if dtype.kind not in kinds or not dtype.itemsize:
        raise DataError(f"The array {where} does not hold real numbers.", got=f"dtype {dtype}")
    if fortran and len(shape) > 1:
        raise DataError(
            f"The array {where} is stored in Fortran order, so that its samples are not in one piece.",
            got=f"shape {list(shape)}",
            fix="Save np.ascontiguousarray(x).",
        )
    offset = file.tell()
    needed = int(np.prod(shape, dtype=object)) * dtype.itemsize if shape else dtype.itemsize
    if offset - start + needed != size or start + size > os.fstat(file.fileno()).st_size:
        raise DataError(f"The array {where} is cut off.", got=f"{size} bytes for shape {list(shape)} of {dtype}")
    return FileRows(os.dup(file.fileno()), offset, dtype, shape, where)
