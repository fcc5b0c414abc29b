"""What every runtime's file in this room provides."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgeopt.core.engine import Engine, Runner
from edgeopt.targets.schema import RuntimeRules, Target

__all__ = ["Availability", "Backend", "Finding"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Availability:
    """Whether a runtime is installed here.

    Attributes:
        version: Its version, or None where it is absent.
        brings: What it is for, in one phrase.
        how_to_get: The command that installs it.
        detail: What is here beside the version (providers, devices), for ``edgeopt doctor``.
        needed: Whether ``compile`` needs it here; False where the device does the building.
    """

    version: str | None
    brings: str
    how_to_get: str
    detail: str = ""
    needed: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something the runtime will do with the graph that the user should know before compiling.

    Attributes:
        severity: ``error``: it will not compile or would compute something else; ``warning``: slower than hoped;
            ``note``: no trouble here, but elsewhere.
        rule: A stable id, e.g. ``TRT001``.
        node: The node (or input, or tensor) concerned.
        message: What happens there, and why.
        fix: What to do.
        source: The document's title and section, or the experiment that showed it.
    """

    severity: str
    rule: str
    node: str | None
    message: str
    fix: str = ""
    source: str = ""


class Backend(Protocol):
    """One runtime. It never calibrates, never chooses precision, never changes numerics."""

    name: str

    def available(self) -> Availability:
        """Whether it is installed; imports nothing heavy."""
        ...

    def check(self, graph: Path, target: Target, rules: RuntimeRules) -> list[Finding]:
        """What will happen to ``graph`` (ONNX, in this runtime's dialect) here. No work is done."""
        ...

    def compile(self, graph: Path, target: Target, rules: RuntimeRules, directory: Path, batch: int) -> Engine:
        """Write the engine's files into ``directory`` (empty, existing).

        Args:
            graph: The ONNX file in this runtime's dialect, external data beside it.
            batch: What a dynamic first dimension is fixed to where the runtime needs static shapes.

        Raises:
            BackendError: The runtime is missing or refused the graph; its own words are in the message.
        """
        ...

    def load(self, engine: Engine, threads: int | None) -> Runner:
        """Open an engine in this process."""
        ...
