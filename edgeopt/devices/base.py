"""Where engines run: a device opens sessions, one agent process each."""

from __future__ import annotations

from typing import Protocol

from edgeopt.bundle.document import DeviceInfo
from edgeopt.core.device import Host, Session

__all__ = ["Device", "Session"]


class Device(Host, Protocol):
    """A machine that can run agents and can say what it is."""

    def info(self) -> DeviceInfo:
        """The machine as the report shows it; its ``name`` is the device's."""
        ...
