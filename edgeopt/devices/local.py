"""This machine: agents are child processes in a clean environment."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgeopt.agent.machine import describe_machine
from edgeopt.bundle.document import DeviceInfo
from edgeopt.core.engine import Engine
from edgeopt.core.errors import DeviceError
from edgeopt.devices.base import demand_built
from edgeopt.devices.facts import device_info
from edgeopt.devices.process import AgentProcess

__all__ = ["LocalDevice"]

# What a child needs of this process's environment: where programs and native libraries are, and the language.
_PASSED_ON = (
    "PATH",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "LANG",
    "LC_ALL",
    "TZ",
    "SYSTEMROOT",
    "CUDA_VISIBLE_DEVICES",
)
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class LocalDevice:
    """This machine.

    Args:
        affinity: Logical CPUs that agents stay on; None leaves the scheduler free.
        timeout_s: The longest that any one request may take.
        runners: Runtimes beside the agent's own: name → ``module:function``.
        search_path: Folders where those modules are looked for.
    """

    numerics_only = ""

    def __init__(
        self,
        *,
        affinity: Sequence[int] | None = None,
        timeout_s: float = 600.0,
        runners: Mapping[str, str] | None = None,
        search_path: Sequence[Path] = (),
    ) -> None:
        self._affinity = _checked_affinity(affinity)
        self._timeout_s = timeout_s
        self._runners = dict(runners or {})
        self._search_path = tuple(search_path)
        self._name = device_info(describe_machine()).name

    @property
    def name(self) -> str:
        """E.g. ``AMD EPYC, 2 cores (x86_64)``."""
        return self._name

    def info(self) -> DeviceInfo:
        """The machine, with its load and clock as they are now."""
        info = device_info(describe_machine())
        pinned = {"pinned_to": ",".join(map(str, self._affinity))} if self._affinity else {}
        return info.model_copy(update={"conditions": {**info.conditions, **pinned}})

    def open(self, engine: Engine, *, threads: int | None = None) -> AgentProcess:
        """Start a fresh agent process for ``engine``.

        Raises:
            DeviceError: The engine was not built, its files are missing, or the agent did not start.
        """
        demand_built(engine)
        arguments = [f"--runner={name}={where}" for name, where in self._runners.items()]
        if self._affinity:
            arguments.append(f"--affinity={','.join(map(str, self._affinity))}")
        directory = tempfile.TemporaryDirectory(prefix="edgeopt-agent-", ignore_cleanup_errors=True)
        return AgentProcess(
            command=[sys.executable, "-m", "edgeopt.agent", *arguments],
            environment=self._environment(Path(directory.name), threads),
            directory=directory,
            entry=str(engine.path.absolute()),
            timeout_s=self._timeout_s,
            title=f"{engine.runtime} engine {engine.entry}",
        )

    def _environment(self, home: Path, threads: int | None) -> dict[str, str]:
        passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        package_root = Path(__file__).parents[2]
        paths = [str(path.absolute()) for path in (package_root, *self._search_path)]
        return {
            **passed_on,
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONNOUSERSITE": "1",
            "HOME": str(home),  # caches of an earlier run would make a cold start warm
            "TMPDIR": str(home),
            "DO_NOT_TRACK": "1",
            **({name: str(threads) for name in _THREADS} if threads else {}),
        }


def _checked_affinity(affinity: Sequence[int] | None) -> tuple[int, ...]:
    if affinity is None:
        return ()
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if not affinity or not set(affinity) <= usable:
        raise DeviceError(
            "Agents cannot be pinned to these CPUs.",
            got=list(affinity),
            fix=f"Usable here: {sorted(usable) or 'none, this system cannot pin'}.",
        )
    return tuple(affinity)
