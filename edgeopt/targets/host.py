"""The machine at hand: what its CPU can do, and which targets it may stand for."""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
from archspec.cpu import brand_string
from archspec.cpu import host as closest_known
from archspec.cpu.detect import CpuidInfoCollector, detected_info
from archspec.cpu.schema import CPUID_JSON

from edgeopt.targets.accelerators import Accelerator, find_accelerators
from edgeopt.targets.schema import Target

__all__ = ["Host", "detect_host", "stands_for"]

_ARCHITECTURES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}
_MODEL = Path("/proc/device-tree/model")
_ACCELERATORS: dict[Accelerator, str] = {"intel-gpu": "Intel GPU", "intel-npu": "Intel NPU"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A machine.

    Attributes:
        cpu: The CPU as it names itself.
        arch: ``x86_64``, ``aarch64``, or what the operating system says.
        features: Instruction-set features as archspec spells them: ``avx512_vnni``, ``asimddp``, ``i8mm``.
        cores: Logical cores that this process may use.
        memory_mib: Physical memory.
        model: The board as firmware names it (``Raspberry Pi 5 Model B Rev 1.0``); empty where there is no such name.
        system: ``linux``, ``android``, ``darwin``, ``windows``.
        compute_capabilities: SM numbers of the NVIDIA GPUs whose driver answers.
        accelerators: Others that the kernel has a driver for.
    """

    cpu: str
    arch: str
    features: frozenset[str]
    cores: int
    memory_mib: int
    model: str = ""
    system: str = "linux"
    compute_capabilities: tuple[int, ...] = ()
    accelerators: frozenset[Accelerator] = frozenset()

    def as_json(self) -> dict[str, object]:
        """The attributes as JSON values, sets in order."""
        return {key: sorted(value) if isinstance(value, frozenset) else value for key, value in asdict(self).items()}


@functools.cache
def detect_host() -> Host:
    """Look at this machine, once per process."""
    machine = platform.machine().lower()
    arch = _ARCHITECTURES.get(machine, machine)
    features = _features(arch)
    return Host(
        cpu=_cpu_name(),
        arch=arch,
        features=features,
        cores=_usable_cores(),
        memory_mib=psutil.virtual_memory().total >> 20,
        model=_board(),
        system="android" if hasattr(sys, "getandroidapilevel") else platform.system().lower(),
        compute_capabilities=_gpus(),
        accelerators=find_accelerators(),
    )


def stands_for(target: Target, host: Host, *, numerics: bool = False) -> tuple[bool, str]:
    """Whether what is measured on ``host`` may carry the name of ``target``, and why, in one sentence.

    Args:
        numerics: Whether only outputs are meant: then the instruction set decides, not which board or system it is.
    """
    difference = next(_differences(target, host, numerics=numerics), None)
    if difference is not None:
        return False, f"{target.name} {difference}."
    return True, f"This machine ({host.model or host.cpu}) is what {target.name} describes."


def _differences(target: Target, host: Host, *, numerics: bool) -> Iterator[str]:
    """What keeps the host from being the target, the plainest first."""
    isa = target.isa
    if host.arch != isa.arch:
        yield f"is {isa.arch}; this machine is {host.arch}"
    if target.system and host.system != target.system and not numerics:
        yield f"runs {target.system}; this machine runs {host.system}"
    if target.identify and not numerics and not any(text in host.model for text in target.identify):
        board = f"says that it is {host.model!r}" if host.model else "does not say that it is one"
        yield f"is one particular device; this machine {board}"
    gpu = target.compute_capability
    if gpu and not target.identify and gpu not in host.compute_capabilities:
        seen = ", ".join(map(str, host.compute_capabilities)) or "none"
        yield f"needs an NVIDIA GPU of compute capability {gpu}; found here: {seen}"
    if target.accelerator and target.accelerator not in host.accelerators:
        yield f"is an {_ACCELERATORS[target.accelerator]}; this machine has none that its kernel has a driver for"
    if missing := [f for f in isa.requires if f not in host.features]:
        yield f"has {', '.join(missing)}; this CPU ({host.cpu}) has not"
    if isa.requires_any and not host.features.intersection(isa.requires_any):
        yield f"has {' or '.join(isa.requires_any)}; this CPU ({host.cpu}) has neither"
    if foreign := [f for f in isa.excludes if f in host.features]:
        yield f"stands for CPUs without {', '.join(foreign)}, which this CPU ({host.cpu}) has"


def _features(arch: str) -> frozenset[str]:
    """What this very CPU has.

    Not ``archspec.cpu.host().features``: those belong to the closest microarchitecture that archspec knows, and a
    virtual machine that hides one unimportant flag is then a generic x86-64-v4 without VNNI.
    """
    found = set(detected_info().features)
    if not found:  # macOS on Apple silicon names the chip and lists nothing
        return frozenset(closest_known().features)
    if arch == "x86_64" and platform.system() == "Linux":
        # Runtimes ask CPUID. Under an emulator its answer is the emulated CPU's, /proc/cpuinfo the real one's.
        try:
            cpuid = CpuidInfoCollector().features
        except Exception:  # noqa: BLE001 (no right to run generated code: /proc/cpuinfo has to do)
            return frozenset(found)
        calls = CPUID_JSON["flags"] + CPUID_JSON["extension-flags"]
        askable = {bit["name"] for call in calls for bit in call["bits"]}
        found -= askable - cpuid
    return frozenset(found)


def _cpu_name() -> str:
    return brand_string() or _board() or closest_known().name


def _board() -> str:
    try:
        return _MODEL.read_bytes().rstrip(b"\0\n").decode(errors="replace")
    except OSError:
        return ""


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gpus() -> tuple[int, ...]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    command = [tool, "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    found = (line.strip().replace(".", "") for line in answer.splitlines())
    return tuple(sorted({int(text) for text in found if text.isdigit()}))
