"""Devices by their names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgeopt.core.events import ProgressListener, ignore_progress
from edgeopt.core.registry import Registry

if TYPE_CHECKING:  # a list of names must not cost an import of pydantic
    from edgeopt.devices.base import Device

__all__ = ["DEVICES", "open_device", "opened"]

DEVICES: Registry[Callable[[], Device]] = Registry(
    "device", {"local": "edgeopt.devices.local:LocalDevice"}, "edgeopt.devices"
)
"""Device name → its class, imported on use."""


def open_device(
    spec: str,
    *,
    accept_new_host_key: bool = False,
    devices_file: Path | None = None,
    progress: ProgressListener = ignore_progress,
) -> Device:
    """The device that ``spec`` names.

    Args:
        spec: ``local`` (this machine), ``ssh://[user@]host[:port][?python=…]``, or a name of ``devices.toml``.
        accept_new_host_key: Take the key of a device that is not in known_hosts yet, and add it.
        devices_file: Instead of ``devices.toml`` here or in the user's config folder.
        progress: Told of uploads.

    Raises:
        DeviceError: The name is unknown, or the address malformed.
    """
    if spec in DEVICES:
        return DEVICES[spec]()
    from edgeopt.devices.fleet import find_address  # noqa: PLC0415
    from edgeopt.devices.ssh.device import SshDevice  # noqa: PLC0415

    return SshDevice(find_address(spec, devices_file), accept_new_host_key=accept_new_host_key, progress=progress)


@contextmanager
def opened(
    spec: str | Device,
    *,
    accept_new_host_key: bool = False,
    devices_file: Path | None = None,
    progress: ProgressListener = ignore_progress,
) -> Iterator[Device]:
    """``open_device``, with everything that was sent to the device removed at the end.

    A device that is open already is whoever's who opened it, and stays open.
    """
    if not isinstance(spec, str):
        yield spec
        return
    device = open_device(spec, accept_new_host_key=accept_new_host_key, devices_file=devices_file, progress=progress)
    try:
        yield device
    finally:
        close = getattr(device, "close", None)
        if close is not None:
            close()
