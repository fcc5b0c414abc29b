"""A place where engines run, as whoever measures sees it."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from edgeopt.core.engine import Engine
from edgeopt.core.errors import DeviceError

__all__ = ["Host", "Session", "demand_timing"]


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

    @property
    def numerics_only(self) -> str:
        """Why times and memory measured here are no device's; empty where they may be measured."""
        ...

    def open(self, engine: Engine, *, threads: int | None = None) -> Session:
        """Start a fresh agent process for ``engine`` (its files are sent where the device is another machine).

        Args:
            threads: What the process's thread-count variables are set to before anything is imported; None leaves
                all cores to it. The runtime itself gets its threads with the request ``load``.
        """
        ...


def demand_timing(host: Host) -> None:
    """Whether times may be measured on ``host``; its outputs may in any case.

    Raises:
        DeviceError: They would be no device's.
    """
    why = getattr(host, "numerics_only", "")  # devices of other packages need not say
    if why:
        raise DeviceError(
            "Latency, throughput and memory are not measured on this device.",
            got=f"{host.name}: {why}",
            fix="Measure them on the real device (--device ssh://…), or the outputs here: edgeopt eval, edgeopt verify.",
        )
