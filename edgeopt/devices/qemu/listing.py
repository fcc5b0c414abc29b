"""Which CPUs can be emulated, and whether they can be now."""

from __future__ import annotations

from dataclasses import dataclass

from edgeopt.core.errors import DeviceError
from edgeopt.devices.qemu.cpus import CPUS
from edgeopt.devices.qemu.device import SETUP, QemuDevice, qemu_version
from edgeopt.devices.qemu.store import host_arch, read_record, store_folder

__all__ = ["EmulatedRow", "emulated_cpus"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedRow:
    """One CPU.

    Attributes:
        name: ``qemu:cortex-a53``.
        ready: Whether it can be used now; ``state`` says with what, or what to do.
    """

    name: str
    title: str
    notes: str
    ready: bool
    state: str


def emulated_cpus() -> list[EmulatedRow]:
    """Every CPU of the table; nothing is started for it but ``qemu --version``."""
    return [_row(name) for name in CPUS]


def _row(name: str) -> EmulatedRow:
    cpu, ready = CPUS[name], True
    try:
        QemuDevice(cpu)
        version = qemu_version(cpu.program)[0]
        record = read_record(store_folder(cpu.arch))
        own = cpu.arch == host_arch() and not cpu.part
        what = "this machine's Python" if own or record is None else _versions(record.versions)
        state = f"ready: {cpu.program} {version}, {what}"
    except DeviceError as error:
        ready, state = False, _short(error)
    return EmulatedRow(name=f"qemu:{name}", title=cpu.title, notes=cpu.notes, ready=ready, state=state)


def _versions(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {versions[name]}" for name in ("onnxruntime", "openvino") if name in versions)


def _short(error: DeviceError) -> str:
    return f"not set up: {error.fix or SETUP}" if "set up" in error.what else f"{error.what} {error.fix or ''}".strip()
