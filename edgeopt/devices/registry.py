"""Devices by their names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from edgeopt.core.errors import DeviceError, nearest_first
from edgeopt.core.events import ProgressListener, ignore_progress
from edgeopt.core.registry import Registry

if TYPE_CHECKING:  # a list of names must not cost an import of pydantic
    from edgeopt.devices.base import Device

__all__ = ["DEVICES", "SCHEMES", "Opener", "open_device", "opened"]


class Opener(Protocol):
    """Makes the device that ``SCHEME:whatever`` names; what it has no use for it leaves alone."""

    def __call__(
        self, spec: str, *, accept_new_host_key: bool, devices_file: Path | None, progress: ProgressListener
    ) -> Device:
        """The device. Raises a ``DeviceError`` where the rest of the name is malformed or cannot be used here."""
        ...


DEVICES: Registry[Callable[[], Device]] = Registry(
    "device",
    {"browser": "edgeopt.devices.browser.device:BrowserDevice", "local": "edgeopt.devices.local:LocalDevice"},
    "edgeopt.devices",
)
"""Device name → its class, imported on use."""

SCHEMES: Registry[Opener] = Registry(
    "kind of device",
    {
        "ssh": "edgeopt.devices.ssh.device:open_ssh",
        "qemu": "edgeopt.devices.qemu.device:open_emulated",
    },
    "edgeopt.device_schemes",
)
"""What stands before the colon in ``ssh://…`` and ``qemu:cortex-a53`` → its opener, imported on use."""


def open_device(
    spec: str,
    *,
    accept_new_host_key: bool = False,
    devices_file: Path | None = None,
    progress: ProgressListener = ignore_progress,
) -> Device:
    """The device that ``spec`` names.

    Args:
        spec: ``local`` (this machine), ``browser`` (Chromium on it), ``ssh://[user@]host[:port][?python=…]``, ``qemu:CPU`` (an emulated CPU, for
            numerics only), or a name of ``devices.toml``.
        accept_new_host_key: Take the key of a device that is not in known_hosts yet, and add it.
        devices_file: Instead of ``devices.toml`` here or in the user's config folder.
        progress: Told of uploads.

    Raises:
        DeviceError: The name is unknown, or the address malformed.
    """
    if spec in DEVICES:
        return DEVICES[spec]()
    scheme, colon, _ = spec.partition(":")
    if not colon and scheme not in SCHEMES:
        scheme = "ssh"  # a name of devices.toml
    if scheme == "fleet":
        raise DeviceError(
            "A fleet is several devices, and this is done on one.", got=repr(spec), fix="Name one device."
        )
    if scheme not in SCHEMES:
        known = ", ".join(("local", *(f"{name}:…" for name in nearest_first(scheme, SCHEMES))))
        raise DeviceError("There is no device of that kind.", got=repr(spec), fix=f"Known: {known}.")
    return SCHEMES[scheme](spec, accept_new_host_key=accept_new_host_key, devices_file=devices_file, progress=progress)


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
