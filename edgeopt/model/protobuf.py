"""Just enough of protobuf's wire format to know an ONNX file without importing onnx."""

from __future__ import annotations

from pathlib import Path
from typing import IO

__all__ = ["looks_like_onnx"]

# Fields of onnx.ModelProto (onnx.proto): ir_version 1, producer 2-3, domain 4, model_version 5, doc 6, graph 7,
# opset_import 8, metadata 14, training 20, functions 25, configuration 26.
_FIELDS = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26})
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def looks_like_onnx(path: Path) -> bool:
    """Whether the file's top-level fields are those of a whole ONNX model, up to its last byte."""
    size = path.stat().st_size
    seen: set[int] = set()
    with path.open("rb") as file:
        while file.tell() < size:
            tag = _varint(file)
            if tag is None or tag >> 3 not in _FIELDS:
                return False
            seen.add(tag >> 3)
            if not _skip(file, tag & 7, size):
                return False
    return 7 in seen


def _skip(file: IO[bytes], wire: int, size: int) -> bool:
    if wire == _VARINT:
        return _varint(file) is not None
    length = {_FIXED64: 8, _FIXED32: 4}.get(wire) if wire != _BYTES else _varint(file)
    if length is None or file.tell() + length > size:
        return False
    file.seek(length, 1)
    return True


def _varint(file: IO[bytes]) -> int | None:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    return None
