"""A place where engines run, as whoever measures sees it."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from edgeopt.core.engine import Engine

__all__ = ["Host", "Session"]


class Session(Protocol):
    """One agent process with one engine; a context manager that ends the process."""

    @property
    def entry(self) -> str:
        """The engine's entry file, by the name that it has for the agent."""
        ...

    def request(self, do: str, **arguments: Any) -> dict[str, Any]:
        """Send one request of ``agent/protocol.py`` and wait for its reply.

        Raises:
            DeviceError: The agent answered with an error, died (its stderr's tail is in the message), or timed out.
        """
        ...

    def put(self, file: Path) -> str:
        """Make a file of the host readable by the agent; returns the name it has there."""
        ...

    def get(self, name: str, file: Path) -> None:
        """Bring a file of the agent to the host."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Host(Protocol):
    """A machine that can run agents.

    ``name`` says what is measured ON, e.g. ``AMD EPYC, 2 cores (x86_64)``; every Measurement repeats it.
    """

    @property
    def name(self) -> str:
        """What figures measured here carry as their device."""
        ...

    def open(self, engine: Engine, *, threads: int | None = None) -> Session:
        """Start a fresh agent process for ``engine`` (its files are sent where the device is another machine).

        Args:
            threads: What the process's thread-count variables are set to before anything is imported; None leaves
                all cores to it. The runtime itself gets its threads with the request ``load``.
        """
        ...
