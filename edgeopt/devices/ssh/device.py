"""A machine behind SSH."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeopt.bundle.document import DeviceInfo
from edgeopt.core.engine import Engine
from edgeopt.core.errors import DeviceError
from edgeopt.core.events import ProgressListener, ignore_progress
from edgeopt.devices.base import demand_built
from edgeopt.devices.facts import device_info
from edgeopt.devices.fleet import find_address
from edgeopt.devices.ssh.address import Address, parse_address
from edgeopt.devices.ssh.depot import Depot
from edgeopt.devices.ssh.link import Link
from edgeopt.devices.ssh.session import SshSession
from edgeopt.devices.ssh.work import Work
from edgeopt.targets.host import Host

__all__ = ["SshDevice", "open_ssh"]

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_INSTALL = {"litert": "ai-edge-litert", "ort-mobile": "onnxruntime"}
_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}


class SshDevice:
    """A machine behind SSH; ``close`` (or the interpreter's end) removes what was sent to it.

    Args:
        address: A URL (``devices/ssh/address.py``), or what it was read to.
        accept_new_host_key: Take the key of a device that is not in known_hosts yet, and add it.
        timeout_s: The longest that any one request may take.
        progress: Told of uploads.
        connect_timeout_s: See ``Link``, like ``keepalive_s`` and ``patience_s``.
    """

    numerics_only = ""

    def __init__(
        self,
        address: Address | str,
        *,
        accept_new_host_key: bool = False,
        timeout_s: float = 600.0,
        progress: ProgressListener = ignore_progress,
        connect_timeout_s: float = 10.0,
        keepalive_s: float = 5.0,
        patience_s: float = 60.0,
    ) -> None:
        self.address = parse_address(address) if isinstance(address, str) else address
        link = Link(
            self.address,
            accept_new_host_key=accept_new_host_key,
            connect_timeout_s=connect_timeout_s,
            keepalive_s=keepalive_s,
            patience_s=patience_s,
        )
        self.depot = Depot(link, progress=progress)
        self._timeout_s = timeout_s
        self._numbers = itertools.count(1)
        self._machine: Mapping[str, Any] | None = None
        self._finalizer = weakref.finalize(self, self.depot.close)

    @property
    def name(self) -> str:
        """E.g. ``nano1: Jetson Orin Nano, 6 cores (aarch64)``."""
        return self._named(device_info(self.machine()))

    @property
    def resumed(self) -> int:
        """How often a lost line was taken up again so far."""
        return self.depot.resumed

    def info(self) -> DeviceInfo:
        """The machine, with its load and clock as they are now.

        Raises:
            DeviceError: The device cannot be reached, or cannot run the agent.
        """
        self._machine = None
        info = device_info(self.machine())
        facts = self.depot.facts()
        found = {
            "jetpack": facts["jetpack"],
            "pinned_to": ",".join(map(str, self.address.affinity)),
            "over": "ssh",
        }
        conditions = {**info.conditions, **{key: value for key, value in found.items() if value}}
        return info.model_copy(update={"name": self._named(info), "conditions": conditions})

    def machine(self) -> Mapping[str, Any]:
        """What the agent says of the machine, asked once."""
        if self._machine is None:
            with self._session("", "no engine", None) as session:
                self._machine = session.request("hello")["machine"]
        return self._machine

    def host(self) -> Host:
        """What the device is to the question which targets it may stand for.

        The kernel's names of CPU features are archspec's names too.
        """
        machine, facts = self.machine(), self.depot.facts()
        arch = str(machine["arch"]).lower()
        return Host(
            cpu=machine["cpu"],
            arch=_ARCHITECTURES.get(arch, arch),
            features=frozenset(machine["flags"]),
            cores=int(machine["cores"]),
            memory_mib=int(machine["memory_mib"]),
            model=facts["model"],
            system=facts["system"],
            compute_capabilities=tuple(facts["compute_capabilities"]),
        )

    def demand(self, runtime: str, versions: str = "", module: str = "") -> str:
        """The version of a runtime there.

        Args:
            versions: Which will do, as a PEP 440 specifier; empty: any.
            module: Another name for the runtime's package: ``tensorrt_rtx``.

        Raises:
            DeviceError: It is not there, or in another version.
        """
        from packaging.specifiers import SpecifierSet  # noqa: PLC0415
        from packaging.version import InvalidVersion  # noqa: PLC0415

        name = module or _INSTALL.get(runtime, runtime)
        found = self.depot.facts()["runtimes"].get(name)
        wanted = f"{name}{versions}"
        how = f"{self.address.python} -m pip install '{wanted}'"
        if name == "tensorrt":
            how = "sudo apt-get install python3-libnvinfer on a Jetson, pip install tensorrt on a PC"
        if found is None:
            if name not in self.depot.facts()["runtimes"]:
                return ""
            raise DeviceError(
                f"{self.address.text} has no {name} for {self.address.python}.", fix=f"Install it there: {how}."
            )
        try:
            fits = SpecifierSet(versions).contains(found, prereleases=True)
        except InvalidVersion:
            fits = False
        if not fits:
            raise DeviceError(
                f"{self.address.text} has another version of {name} than the target asks for.",
                got=f"{found}, wanted {versions}",
                fix=f"Install it there: {how}.",
            )
        return str(found)

    def open(self, engine: Engine, *, threads: int | None = None) -> SshSession:
        """Send what is not there yet, and make ready for a fresh agent process for ``engine``.

        Raises:
            DeviceError: The engine was not built, its files are missing, or the device cannot run it.
        """
        demand_built(engine)
        self.demand(engine.runtime, module=str(engine.options.get("module", "")))
        entry = f"{self.depot.engine(engine)}/{engine.entry}"
        return self._session(entry, f"{engine.runtime} engine {engine.entry} on {self.address.label}", threads)

    def work(self, name: str) -> Work:
        """A folder there to run a program in."""
        return Work(self.depot, f"{name}-{next(self._numbers)}")

    def close(self) -> None:
        """Remove everything from the device, and end the connection."""
        self.depot.close()

    def _session(self, entry: str, title: str, threads: int | None) -> SshSession:
        code = self.depot.agent()
        pinned = [f"--affinity={','.join(map(str, self.address.affinity))}"] if self.address.affinity else []
        return SshSession(
            depot=self.depot,
            number=next(self._numbers),
            entry=entry,
            arguments=[self.address.python, "-m", "agent", *pinned],
            environment={
                "PYTHONPATH": code,
                "PYTHONDONTWRITEBYTECODE": "1",
                "DO_NOT_TRACK": "1",
                **({name: str(threads) for name in _THREADS} if threads else {}),
            },
            timeout_s=self._timeout_s,
            title=title,
        )

    def _named(self, info: DeviceInfo) -> str:
        return f"{self.address.label}: {info.name}"


def open_ssh(
    spec: str, *, accept_new_host_key: bool, devices_file: Path | None, progress: ProgressListener
) -> SshDevice:
    """The device of a URL or of a name in ``devices.toml``.

    Raises:
        DeviceError: There is no such name, or the address is malformed.
    """
    return SshDevice(find_address(spec, devices_file), accept_new_host_key=accept_new_host_key, progress=progress)
