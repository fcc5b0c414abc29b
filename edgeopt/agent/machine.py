"""What this machine is: CPU, instruction set, memory, and whatever of its state bears on a timing."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

__all__ = ["describe_machine"]


def describe_machine() -> dict[str, Any]:
    """Facts as the kernel tells them.

    Returns:
        ``cpu``, ``arch``, ``flags`` (the kernel's names), ``cores`` (that this process may use), ``memory_mib``,
        ``system``, and ``conditions``: text → text; what cannot be read is left out.
    """
    fields = _cpuinfo()
    return {
        "cpu": _cpu_name(fields),
        "arch": platform.machine() or "unknown",
        "flags": (fields.get("flags") or fields.get("Features") or "").split(),
        "cores": _usable_cores(),
        "memory_mib": _memory_mib(),
        "system": _system(),
        "conditions": _conditions(),
    }


def _cpuinfo() -> dict[str, str]:
    """The first processor's fields, plus those that ARM kernels write after the last one."""
    fields: dict[str, str] = {}
    for line in _read("/proc/cpuinfo").splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip(), value.strip())
    return fields


def _cpu_name(fields: dict[str, str]) -> str:
    names = (
        fields.get("model name", ""),
        _read("/proc/device-tree/model").strip("\0\n "),  # boards: "Raspberry Pi 5 Model B Rev 1.0"
        fields.get("Model", ""),
        fields.get("Hardware", ""),
        platform.processor(),
    )
    for name in names:
        if name and name.lower() != "unknown":
            return " ".join(name.replace("(R)", "").replace("(TM)", "").split())
    return "unknown CPU"


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_mib() -> int:
    try:
        return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20)
    except (AttributeError, OSError, ValueError):
        return 0


def _system() -> str:
    pretty = ""
    for line in _read("/etc/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            pretty = line.partition("=")[2].strip('"')
    kernel = f"{platform.system()} {platform.release()}"
    return f"{pretty}, {kernel}" if pretty else kernel


def _conditions() -> dict[str, str]:
    cpu = "/sys/devices/system/cpu/cpu0/cpufreq/"
    found = {
        "governor": _read(cpu + "scaling_governor").strip(),
        "frequency_mhz": _mhz(_read(cpu + "scaling_cur_freq")),
        "frequency_max_mhz": _mhz(_read(cpu + "cpuinfo_max_freq")),
        "load_average": " ".join(_read("/proc/loadavg").split()[:3]),
        "affinity": _affinity(),
        "cpu_quota": _quota(),
        "tegra_release": _read("/etc/nv_tegra_release").partition("\n")[0],
        "python": platform.python_version(),
    }
    return {name: value for name, value in found.items() if value}


def _mhz(khz: str) -> str:
    return str(int(khz) // 1000) if khz.strip().isdigit() else ""


def _affinity() -> str:
    if not hasattr(os, "sched_getaffinity"):
        return ""
    return ",".join(str(cpu) for cpu in sorted(os.sched_getaffinity(0)))


def _quota() -> str:
    """The control group's CPU limit (version 2), e.g. ``200000 100000``: two cores' worth."""
    limit = _read("/sys/fs/cgroup/cpu.max").strip()
    return "" if limit.startswith("max") else limit


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
