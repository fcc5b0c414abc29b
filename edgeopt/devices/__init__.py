"""Where engines run."""

from edgeopt.devices.registry import DEVICES, open_device

__all__ = ["DEVICES", "open_device"]
