"""Named arrays in one message, for the page: ``page/wire.js`` holds the other end.

A message is the length of a header (uint32, little-endian), the header (JSON: a list of ``name``, ``dtype``, ``shape``,
``offset``), and the arrays' bytes, row-major and little-endian, each at an offset that is a multiple of 8 (a view of
64-bit integers must be aligned).
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeopt.core.errors import DeviceError
from edgeopt.core.spec import DTYPES

__all__ = ["pack", "unpack"]

_ALIGNED = 8


def pack(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The message that holds ``arrays``.

    >>> unpack(pack({"x": np.arange(3, dtype=np.int64)}))["x"].tolist()
    [0, 1, 2]
    """
    plain = {name: np.asarray(array, array.dtype.newbyteorder("<"), order="C") for name, array in arrays.items()}
    # The header's length must not depend on the offsets in it: they are written with the same number of digits.
    at = _aligned(4 + len(_header(plain, dict.fromkeys(plain, 0))))
    offsets = {}
    for name, array in plain.items():
        offsets[name] = at
        at = _aligned(at + array.nbytes)
    header = _header(plain, offsets)
    whole = bytearray(at)
    whole[: 4 + len(header)] = struct.pack("<I", len(header)) + header
    for name, array in plain.items():
        whole[offsets[name] : offsets[name] + array.nbytes] = array.tobytes()
    return bytes(whole)


def unpack(message: bytes) -> dict[str, np.ndarray]:
    """The arrays of a message; they are copies.

    Raises:
        DeviceError: The message is not one.
    """
    try:
        (length,) = struct.unpack_from("<I", message)
        entries: list[dict[str, Any]] = json.loads(message[4 : 4 + length])
        return {str(entry["name"]): _array(message, entry) for entry in entries}
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise DeviceError("The browser sent outputs that cannot be read.", got=error) from error


def _array(message: bytes, entry: Mapping[str, Any]) -> np.ndarray:
    dtype, shape = str(entry["dtype"]), [int(n) for n in entry["shape"]]
    if dtype not in DTYPES:
        raise ValueError(f"the element type {dtype!r} is none of {', '.join(DTYPES)}")
    count = math.prod(shape)
    flat = np.frombuffer(message, dtype=np.dtype(dtype).newbyteorder("<"), count=count, offset=int(entry["offset"]))
    return flat.reshape(shape).astype(dtype)


def _header(arrays: Mapping[str, np.ndarray], offsets: Mapping[str, int]) -> bytes:
    # JSON takes spaces before a number, so every offset can have the same width.
    entries = ", ".join(
        f'{{"name": {json.dumps(name)}, "dtype": "{array.dtype.name}", "shape": {list(array.shape)}, '
        f'"offset": {offsets[name]:16d}}}'
        for name, array in arrays.items()
    )
    return f"[{entries}]".encode()


def _aligned(n: int) -> int:
    return -(-n // _ALIGNED) * _ALIGNED
