"""Where what emulation needs is kept, and what is in it: one folder per architecture that this machine is not.

::

    $EDGEOPT_DATA_DIR/qemu/aarch64/
      setup.json   what is in it
      root/        Python and the C libraries, from Debian or Ubuntu packages
      site/        NumPy and the runtimes, wheels of this machine's own versions
      cpus/NAME/   what QEMU lays over the guest's root (-L): links into root/, and a /proc/cpuinfo
      agents/      the agent, one copy per version of it
"""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from edgeopt.devices.data_folder import data_folder

__all__ = ["PACKAGES", "RECORD", "Record", "host_arch", "host_versions", "read_record", "store_folder"]

RECORD = "setup.json"
PACKAGES = ("numpy", "onnxruntime", "flatbuffers", "packaging", "protobuf", "openvino")
"""What the agent's runners need, as far as this machine has it; the runtimes among them are what can be run."""

_ARCHITECTURES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}


class Record(BaseModel):
    """What a finished set-up holds.

    Attributes:
        python: The guest's Python, e.g. ``3.11``.
        versions: Package → version.
        left_out: Package → why it is not there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    arch: str
    python: str
    distribution: str
    versions: dict[str, str]
    left_out: dict[str, str]


def store_folder(arch: str) -> Path:
    """Below ``data_folder()``, the architecture's."""
    return data_folder() / "qemu" / arch


def read_record(folder: Path) -> Record | None:
    """What a folder holds; None where nothing finished is there."""
    try:
        return Record.model_validate_json((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        return None


def host_arch() -> str:
    """This machine's architecture, as Linux spells it."""
    machine = platform.machine().lower()
    return _ARCHITECTURES.get(machine, machine)


def host_versions() -> dict[str, str]:
    """The versions of ``PACKAGES`` in this Python."""
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
