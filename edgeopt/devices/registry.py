"""Devices by their names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edgeopt.core.errors import DeviceError, nearest_first
from edgeopt.core.registry import Registry

if TYPE_CHECKING:  # a list of names must not cost an import of pydantic
    from edgeopt.devices.base import Device

__all__ = ["DEVICES", "open_device"]

DEVICES: Registry[Callable[[], Device]] = Registry(
    "device", {"local": "edgeopt.devices.local:LocalDevice"}, "edgeopt.devices"
)
"""Device name → its class, imported on use."""


def open_device(spec: str) -> Device:
    """The device that ``spec`` names.

    Args:
        spec: ``local``: this machine.

    Raises:
        DeviceError: The name is unknown, or of a kind that is not there yet.
    """
    if spec.startswith("ssh://"):
        raise DeviceError(
            "Devices over SSH are not there yet.",
            got=spec,
            fix="Copy the bundle to the device and run `edgeopt bench` there with the device `local`.",
        )
    if spec not in DEVICES:
        known = ", ".join(nearest_first(spec, DEVICES))
        raise DeviceError("There is no device of that name.", got=repr(spec), fix=f"Known: {known}.")
    return DEVICES[spec]()
