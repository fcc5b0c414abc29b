"""The manifest: what a bundle holds, how it came about, and what its model expects."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from edgeopt.bundle.document import SplitRow
from edgeopt.core.engine import Engine
from edgeopt.core.events import Event
from edgeopt.core.spec import Dim, TensorSpec

__all__ = [
    "MANIFEST_VERSION",
    "Contract",
    "DataRecord",
    "EngineRecord",
    "FileRecord",
    "InputRecord",
    "Manifest",
    "ModelRecord",
    "OutputRecord",
]

MANIFEST_VERSION: Literal[1] = 1


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class FileRecord(_Frozen):
    """One file of the bundle: its content's sha256 in hex and its length."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class ModelRecord(_Frozen):
    """The model as it came in."""

    name: str
    format: str
    sha256: str


class DataRecord(_Frozen):
    """The data that calibrated and judged the model, and how it was split.

    Attributes:
        task: What its targets are; empty in bundles made before there were several tasks.
        columns: What else is known of each test sample.
    """

    name: str
    task: str = ""
    columns: tuple[str, ...] = ()
    fingerprint: str
    splits: tuple[SplitRow, ...]


class EngineRecord(_Frozen):
    """The shipped engine: ``core.engine.Engine`` without its place on disk.

    Attributes:
        entry: The file below ``engine/`` that a runner opens; where ``not_built``, the one the device will make.
        batch: What a static first dimension was fixed to, or None where the engine takes any batch.
        inputs: As the engine has them: static where it was compiled static.
    """

    entry: str
    status: Literal["built", "not_built"]
    options: dict[str, Any] = Field(default_factory=dict)
    next_command: str | None = None
    batch: int | None = Field(default=None, ge=1)
    inputs: tuple[TensorSpec, ...] = Field(min_length=1)
    outputs: tuple[TensorSpec, ...] = Field(min_length=1)
    events: tuple[Event, ...] = ()

    @classmethod
    def of(cls, engine: Engine) -> EngineRecord:
        """The record of an engine that a backend made; its batch is read off its first input."""
        batch = engine.inputs[0].batch
        return cls(
            entry=engine.entry,
            status=engine.status,
            options=dict(engine.options),
            next_command=engine.next_command,
            batch=batch if isinstance(batch, int) else None,
            inputs=engine.inputs,
            outputs=engine.outputs,
            events=engine.events,
        )

    @field_validator("entry")
    @classmethod
    def _check_entry(cls, entry: str) -> str:
        return _inside(entry)


class InputRecord(_Frozen):
    """What one input means, for whoever feeds the model.

    Attributes:
        layout: ``NCHW``, ``NC``, … or None where unknown.
        value_range: Smallest and largest value of the calibration data, after preprocessing.
        scale: What was multiplied by first, e.g. ``1/255``.
        mean: What was subtracted per channel; ``std``: what it was divided by. None where the data came ready.
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...]
    layout: str | None = None
    value_range: tuple[float, float] | None = None
    scale: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    preprocessing: str | None = None


class OutputRecord(_Frozen):
    """One output: name, dtype, shape."""

    name: str
    dtype: str
    shape: tuple[Dim, ...]


class Contract(_Frozen):
    """The model's side of the deal. ``classes``: in label order, empty where unknown."""

    inputs: tuple[InputRecord, ...] = Field(min_length=1)
    outputs: tuple[OutputRecord, ...] = Field(min_length=1)
    classes: tuple[str, ...] = ()


class Manifest(_Frozen):
    """What ``manifest.json`` holds.

    Attributes:
        kind: Marks the folder as a bundle, so that no other folder is ever replaced.
        versions: Every library that took part, name → version.
        created: ISO 8601, UTC.
        files: Every file but the manifest itself, by its path in POSIX form; filled in when the bundle is written.
    """

    kind: Literal["edgeopt-bundle"] = "edgeopt-bundle"
    schema_version: Literal[1] = MANIFEST_VERSION
    edgeopt_version: str
    versions: dict[str, str]
    python: str
    created: str
    command: str
    seed: int
    model: ModelRecord
    target: str
    recipe: str
    runtime: str
    runtime_version: str
    precision: str
    dialect: str
    engine: EngineRecord
    contract: Contract
    data: DataRecord | None
    files: dict[str, FileRecord] = Field(default_factory=dict)

    @field_validator("files")
    @classmethod
    def _check_files(cls, files: dict[str, FileRecord]) -> dict[str, FileRecord]:
        for name in files:
            _inside(name)
        return files


def _inside(name: str) -> str:
    """The name, if it stays inside the folder on every operating system."""
    path = PurePosixPath(name)
    plain = path.name and str(path) == name and not path.is_absolute() and ".." not in path.parts
    if not plain or any(c in name for c in "\\:\0"):
        raise ValueError(f"the path {name!r} could leave the bundle")
    return name
