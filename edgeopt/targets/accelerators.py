"""Which accelerators a Linux kernel has a driver for, read from sysfs: no runtime is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

__all__ = ["Accelerator", "find_accelerators"]

Accelerator = Literal["intel-gpu", "intel-npu"]
_INTEL = "0x8086"  # PCI's number of the vendor
# Where the kernel lists render nodes (DRM) and compute accelerators (accel subsystem).
_CLASSES: tuple[tuple[Accelerator, str, str], ...] = (
    ("intel-gpu", "class/drm", "renderD*"),
    ("intel-npu", "class/accel", "accel*"),
)


def find_accelerators(root: Path = Path("/sys")) -> frozenset[Accelerator]:
    """The accelerators whose device node a driver of this kernel made.

    Source: the Linux kernel's documentation, DRM (render nodes) and Compute Accelerators (accel subsystem).
    """
    return frozenset(
        name
        for name, folder, pattern in _CLASSES
        for node in (root / folder).glob(pattern)
        if _vendor(node / "device" / "vendor") == _INTEL
    )


def _vendor(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
