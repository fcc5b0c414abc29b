"""What a backend makes, and what can run it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import numpy as np

from edgeopt.core.coverage import Coverage
from edgeopt.core.events import Event
from edgeopt.core.spec import TensorSpec

__all__ = ["CONVERTED", "Arrays", "Engine", "Runner"]

CONVERTED = "converted, not run"
"""How ``why_not_built`` begins where a device only has to compile and run what was written here."""

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A compiled artifact on disk.

    Attributes:
        runtime: The backend's registry name, e.g. ``onnxruntime``.
        runtime_version: The version that compiled it (or that it was written for).
        directory: The folder that holds every file of the engine and nothing else.
        entry: The file, relative to ``directory``, that a runner opens.
        status: ``built``, or ``not_built`` where only the device can build it; then ``next_command`` says how.
        why_not_built: Where it is not, and more is to be said than that only the device can build it.
        inputs: With the batch the engine was compiled for; a dynamic one keeps its name.
        outputs: Likewise.
        options: What the runner must set to run it as compiled (session options, hints). JSON values.
        events: What the runtime did on its own: fall-backs, ops left in float.
        coverage: What it runs in int8, where it tells.
    """

    runtime: str
    runtime_version: str
    directory: Path
    entry: str
    status: Literal["built", "not_built"]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    next_command: str | None = None
    why_not_built: str = ""
    events: tuple[Event, ...] = ()
    coverage: Coverage | None = None

    @property
    def path(self) -> Path:
        """The file that a runner opens."""
        return self.directory / self.entry


class Runner(Protocol):
    """An engine in memory. A context manager; after exit it holds no native memory."""

    def infer(self, inputs: Arrays) -> dict[str, np.ndarray]:
        """Run once. ``inputs``: one array per input name; returns one array per output name."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
