"""The processes of one browser: which of them holds the engine, what it holds, and what they all used."""

from __future__ import annotations

import sys
from typing import Any

import psutil

from edgeopt.agent.memory import MemoryMeter
from edgeopt.agent.state import read_state

__all__ = ["BrowserProcesses"]

_MIB = 2**20


class BrowserProcesses:
    """A browser's process and its children, from when its page stands there and has done nothing yet.

    Args:
        pid: The browser's.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._before = {process.pid: _cpu_s(process) for process in self._all()}
        self._meter: MemoryMeter | None = None
        self._renderer: psutil.Process | None = None
        self._why = "no engine was loaded"

    def started(self) -> None:
        """The runtime is up: note what the page's process holds before the engine comes."""
        self._renderer = self._busiest()
        if self._renderer is None:
            self._why = "the page's process was not found"
        elif not sys.platform.startswith("linux"):
            self._why = "only Linux keeps a peak that can be set back"
        else:
            self._meter = MemoryMeter(self._renderer.pid)
            self._meter.start()

    def loaded(self) -> None:
        """The engine is loaded."""
        if self._meter is not None:
            self._meter.loaded()

    def memory(self) -> dict[str, Any]:
        """The reply to ``memory``: peaks of the page's process, which holds the engine, the runtime and its code."""
        if self._meter is None:
            return {"unavailable": self._why}
        try:
            reply = self._meter.report()
        except (OSError, LookupError) as error:
            return {"unavailable": str(error)}
        if "how" in reply:
            reply["how"] = (
                "VmHWM of the page's process, set back through clear_refs; minus VmRSS with the runtime compiled"
            )
        return reply

    def resident_mib(self) -> float | None:
        """What the page's process holds now."""
        try:
            return None if self._renderer is None else round(self._renderer.memory_info().rss / _MIB, 3)
        except psutil.Error:
            return None

    def state(self) -> dict[str, Any]:
        """This machine's state, with the browser's own memory and CPU time in place of this process's."""
        found = {**read_state(), "cpu_own_s": sum(map(_cpu_s, self._all()))}
        resident = self.resident_mib()
        return found if resident is None else {**found, "rss_mib": resident}

    def _all(self) -> list[psutil.Process]:
        try:
            browser = psutil.Process(self._pid)
            return [browser, *browser.children(recursive=True)]
        except psutil.Error:
            return []

    def _busiest(self) -> psutil.Process | None:
        """The page's process: what compiled the runtime just now. A browser has other pages' and spare ones."""
        renderers = [process for process in self._all() if _is_renderer(process)]
        return max(renderers, key=lambda process: _cpu_s(process) - self._before.get(process.pid, 0.0), default=None)


def _is_renderer(process: psutil.Process) -> bool:
    try:
        return "--type=renderer" in process.cmdline()
    except psutil.Error:
        return False


def _cpu_s(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)
