"""What of a machine's state bears on a timing, read at one moment; what cannot be read is left out, never an error."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

__all__ = ["read_state"]

_ROOT = Path("/")


def read_state(root: Path = _ROOT) -> dict[str, Any]:
    """The state now.

    Args:
        root: Where ``sys`` and ``proc`` are looked for.

    Returns:
        Any of ``governor``, ``frequency_mhz`` (the mean of the CPUs), ``frequency_max_mhz``, ``temperature_c`` (the
        hottest zone), ``throttle_count`` (of all CPUs, since boot), ``load_average``, ``affinity``, ``rss_mib``,
        ``cpu_busy_s`` and ``cpu_total_s`` (of the whole machine, since boot); and always ``cpu_own_s`` (of this process).
    """
    cpus = root / "sys/devices/system/cpu"
    frequencies = _numbers(cpus, "cpu[0-9]*/cpufreq/scaling_cur_freq")
    highest = _numbers(cpus, "cpu[0-9]*/cpufreq/cpuinfo_max_freq")
    # Zones that are not wired up answer 0 or nonsense.
    zones = [t / 1000 for t in _numbers(root / "sys/class/thermal", "thermal_zone*/temp") if 1000 < t < 200_000]
    throttles = _numbers(cpus, "cpu[0-9]*/thermal_throttle/*_throttle_count")
    busy, total = _cpu_seconds(_text(root / "proc/stat"))
    found = {
        "governor": _text(cpus / "cpu0/cpufreq/scaling_governor").strip() or None,
        "frequency_mhz": round(sum(frequencies) / len(frequencies) / 1000) if frequencies else None,
        "frequency_max_mhz": round(max(highest) / 1000) if highest else None,
        "temperature_c": round(max(zones), 1) if zones else None,
        "throttle_count": int(sum(throttles)) if throttles else None,
        "load_average": " ".join(_text(root / "proc/loadavg").split()[:3]) or None,
        "affinity": _affinity(),
        "rss_mib": _rss_mib(_text(root / "proc/self/statm")),
        "cpu_busy_s": busy,
        "cpu_total_s": total,
        "cpu_own_s": time.process_time(),
    }
    return {name: value for name, value in found.items() if value is not None}


def _cpu_seconds(stat: str) -> tuple[float | None, float | None]:
    """Busy and whole time of all CPUs: proc(5), "/proc/stat". Guest time is within user time."""
    fields = stat.partition("\n")[0].split()
    if len(fields) < 5 or fields[0] != "cpu" or not all(field.isdigit() for field in fields[1:]):
        return None, None
    tick = os.sysconf("SC_CLK_TCK")
    times = [int(field) / tick for field in fields[1:9]]
    waiting = sum(times[3:5])  # idle, and waiting for a disk
    return sum(times) - waiting, sum(times)


def _rss_mib(statm: str) -> float | None:
    fields = statm.split()
    if len(fields) < 2 or not fields[1].isdigit():
        return None
    return round(int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20, 3)


def _affinity() -> str | None:
    return ",".join(str(cpu) for cpu in sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else None


def _numbers(folder: Path, pattern: str) -> list[float]:
    try:
        texts = [_text(path).strip() for path in sorted(folder.glob(pattern))]
    except OSError:
        return []
    return [float(text) for text in texts if text.lstrip("-").isdigit()]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # absent, forbidden, or a sensor that is switched off
        return ""
