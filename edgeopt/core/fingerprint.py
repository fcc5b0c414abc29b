"""Content hashes: what makes two runs the same run."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["hash_array", "hash_bytes", "hash_file", "hash_json", "hash_tree"]

_CHUNK = 1 << 20


def hash_bytes(data: bytes) -> str:
    """Sha256 of bytes, in hex."""
    return hashlib.sha256(data).hexdigest()


def hash_file(path: Path) -> str:
    """Sha256 of a file's content, in hex, read in chunks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_tree(directory: Path) -> str:
    """Sha256 over the relative names and contents of all files below ``directory``."""
    files = sorted(p for p in directory.rglob("*") if p.is_file())
    return hash_json({str(p.relative_to(directory)): hash_file(p) for p in files})


def hash_json(value: Any) -> str:
    """Sha256 of a JSON value in canonical form: sorted keys, no spaces."""
    return hash_bytes(json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode())


def hash_array(array: np.ndarray) -> str:
    """Sha256 of an array's dtype, shape and values in C order."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    for start in range(0, flat.size, _CHUNK):
        digest.update(flat[start : start + _CHUNK].tobytes())
    return digest.hexdigest()
