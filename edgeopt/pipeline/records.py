"""Small typed JSON files inside stage folders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from edgeopt.core.engine import Engine

__all__ = ["read", "read_engine", "write", "write_engine"]

T = TypeVar("T")


def write(path: Path, kind: Any, value: Any) -> None:
    """Write ``value``, of type ``kind``, as JSON."""
    path.write_bytes(TypeAdapter(kind).dump_json(value, indent=1))


def read(path: Path, kind: type[T]) -> T:
    """Read what ``write`` wrote."""
    adapter: TypeAdapter[T] = TypeAdapter(kind)
    return adapter.validate_json(path.read_bytes())


def write_engine(folder: Path, engine: Engine) -> None:
    """Write ``engine.json`` beside the engine's own folder, which must lie inside ``folder``."""
    relative = Path(engine.directory).relative_to(folder)
    write(folder / "engine.json", Engine, replace(engine, directory=relative))


def read_engine(folder: Path) -> Engine:
    """Read what ``write_engine`` wrote."""
    engine = read(folder / "engine.json", Engine)
    return replace(engine, directory=folder / engine.directory)
