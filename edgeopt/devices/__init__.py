"""Where engines run."""

from edgeopt.devices.registry import DEVICES, open_device, opened

__all__ = ["DEVICES", "open_device", "opened"]
