"""Peak memory of a process, from the kernel's own high-water mark.

Linux keeps the peak of the resident set in ``VmHWM`` of ``/proc/PID/status``, and writing 5 to
``/proc/PID/clear_refs`` sets it back to the present size (proc(5), "clear_refs"). So the peak of a phase can be
read without polling, to within 0.3 MiB.
"""

from __future__ import annotations

from typing import Any

__all__ = ["HOW", "MemoryMeter"]

HOW = "VmHWM of a process of its own, set back through clear_refs; minus VmRSS after the runtime's import"


class MemoryMeter:
    """Phases of one process: ``start`` before the engine is loaded, ``loaded`` right after, ``report`` at any time.

    Args:
        process: Its id; ``self`` for this one.
    """

    def __init__(self, process: int | str = "self") -> None:
        self._process = process
        self._baseline: float | None = None
        self._load_peak: float | None = None
        self._why = "the engine was not loaded yet"

    def start(self) -> None:
        """Note the baseline and set the high-water mark back."""
        try:
            self._baseline = _status_mib(self._process, "VmRSS")
            _reset_peak(self._process)
        except (OSError, LookupError, ValueError) as error:
            self._baseline, self._why = None, str(error)

    def loaded(self) -> None:
        """Note the peak of loading, and set the high-water mark back."""
        if self._baseline is None:
            return
        try:
            self._load_peak = _status_mib(self._process, "VmHWM")
            _reset_peak(self._process)
        except (OSError, LookupError, ValueError) as error:
            self._baseline, self._why = None, str(error)

    def report(self) -> dict[str, Any]:
        """The reply to ``memory``."""
        if self._baseline is None or self._load_peak is None:
            return {"unavailable": self._why}
        return {
            "baseline_mib": self._baseline,
            "load_peak_mib": self._load_peak,
            "run_peak_mib": _status_mib(self._process, "VmHWM"),
            "how": HOW,
        }


def _status_mib(process: int | str, key: str) -> float:
    with open(f"/proc/{process}/status", encoding="ascii", errors="replace") as file:  # noqa: PTH123 - no Path per sample
        for line in file:
            if line.startswith(key + ":"):
                return int(line.split()[1]) / 1024
    raise LookupError(f"this kernel does not report {key}")


def _reset_peak(process: int | str) -> None:
    with open(f"/proc/{process}/clear_refs", "w", encoding="ascii") as file:  # noqa: PTH123
        file.write("5")
