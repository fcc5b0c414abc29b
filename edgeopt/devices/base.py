"""Where engines run: a device opens sessions, one agent process each."""

from __future__ import annotations

from typing import Protocol

from edgeopt.bundle.document import DeviceInfo
from edgeopt.core.device import Host, Session
from edgeopt.core.engine import Engine
from edgeopt.core.errors import DeviceError

__all__ = ["Device", "Session", "demand_built"]


class Device(Host, Protocol):
    """A machine that can run agents and can say what it is."""

    def info(self) -> DeviceInfo:
        """The machine as the report shows it; its ``name`` is the device's."""
        ...


def demand_built(engine: Engine) -> None:
    """Whether there is an engine to run.

    Raises:
        DeviceError: It was not built, or its file is missing.
    """
    if engine.status != "built":
        raise DeviceError("The engine was not built, so it cannot be run.", got=engine.entry, fix=engine.next_command)
    if not engine.path.exists():
        raise DeviceError("The engine's file is missing.", got=engine.path)
