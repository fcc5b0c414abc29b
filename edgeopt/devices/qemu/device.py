"""A CPU under QEMU's user mode: the agent and the artifact run as they are, for their numbers only."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import edgeopt.agent
from edgeopt.agent.machine import describe_machine
from edgeopt.bundle.document import DeviceInfo
from edgeopt.core.engine import Engine
from edgeopt.core.errors import DeviceError
from edgeopt.core.events import ProgressListener
from edgeopt.core.fingerprint import hash_bytes
from edgeopt.devices.base import demand_built
from edgeopt.devices.facts import device_info
from edgeopt.devices.process import AgentProcess
from edgeopt.devices.qemu.cpus import EmulatedCpu, find_cpu
from edgeopt.devices.qemu.store import Record, host_arch, host_versions, read_record, store_folder
from edgeopt.targets.host import Host

__all__ = ["SETUP", "QemuDevice", "open_emulated", "qemu_version"]

SETUP = "edgeopt devices setup qemu"

# A request is a few samples (``at_once``). The slowest seen took 570 times its time here: a second becomes ten minutes.
_TIMEOUT_S = 7200.0
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ")
_RUNTIMES = {"ort-mobile": "onnxruntime"}


class QemuDevice:
    """An emulated CPU.

    Args:
        cpu: Which.
        timeout_s: The longest that any one request may take.

    Raises:
        DeviceError: QEMU is not installed, or too old for the CPU; or its architecture is not set up.
    """

    numerics_only = "the CPU is emulated, so times and memory are the emulator's"
    at_once = 8  # samples in one request: so progress is seen, and a time limit is one for few samples

    def __init__(self, cpu: EmulatedCpu, *, timeout_s: float = _TIMEOUT_S) -> None:
        self.cpu = cpu
        self._timeout_s = timeout_s
        self._qemu = _program(cpu)
        self._folder = None if cpu.arch == host_arch() and not cpu.part else _finished(cpu)

    @property
    def name(self) -> str:
        """E.g. ``qemu cortex-a53 (emulated on x86_64)``."""
        return f"qemu {self.cpu.name} (emulated on {host_arch()})"

    def info(self) -> DeviceInfo:
        """The emulated CPU; its memory and number of cores are this machine's, which shine through."""
        info = device_info(describe_machine())
        emulator = f"{self.cpu.program} {qemu_version(self.cpu.program)[0]}"
        return info.model_copy(
            update={
                "name": self.name,
                "cpu": self.cpu.title,
                "arch": self.cpu.arch,
                "isa": self.cpu.features,
                "system": f"{emulator} -cpu {self.cpu.qemu} on {platform.system()}, {host_arch()}",
                "conditions": {"emulated_by": emulator, "python": self._python_version()},
            }
        )

    def host(self) -> Host:
        """What the emulated CPU is to the question which targets its numbers may stand for."""
        info = self.info()
        return Host(
            cpu=self.cpu.title,
            arch=self.cpu.arch,
            features=frozenset(self.cpu.features),
            cores=info.cores,
            memory_mib=info.memory_mib,
        )

    def demand(self, runtime: str, versions: str = "", module: str = "") -> str:
        """The version of a runtime there.

        Args:
            versions: Which will do, as a PEP 440 specifier; empty: any.
            module: Another name for the runtime's package.

        Raises:
            DeviceError: It is not there, in another version than here, or in one that will not do.
        """
        from packaging.specifiers import SpecifierSet  # noqa: PLC0415

        name = module or _RUNTIMES.get(runtime, runtime)
        here = host_versions()
        if self._folder is None:
            found, record = here, None
        else:
            record = _finished_record(self.cpu, self._folder)
            found = record.versions
        if name not in found:
            why = "" if record is None else record.left_out.get(name, "")
            raise DeviceError(
                f"{self.name} has no {name}.",
                got=why or f"it has {', '.join(found) or 'none'}",
                fix=f"Install {name} here, then: {SETUP}." if name not in here else f"Set it up again: {SETUP}.",
            )
        if name in here and found[name] != here[name]:
            raise DeviceError(
                f"{self.name} has another {name} than this machine: differences would say nothing of the CPU.",
                got=f"{found[name]} there, {here[name]} here",
                fix=f"Set it up again: {SETUP} --arch {self.cpu.arch}.",
            )
        if not SpecifierSet(versions).contains(found[name], prereleases=True):
            raise DeviceError(
                f"{self.name} has another version of {name} than the target asks for.",
                got=f"{found[name]}, wanted {versions}",
                fix=f"Install it here (pip install '{name}{versions}'), then: {SETUP}.",
            )
        return found[name]

    def open(self, engine: Engine, *, threads: int | None = None) -> AgentProcess:
        """Start a fresh agent process for ``engine``.

        Raises:
            DeviceError: The engine was not built, its files are missing, or the device cannot run it.
        """
        demand_built(engine)
        self.demand(engine.runtime, module=str(engine.options.get("module", "")))
        title = f"{engine.runtime} engine {engine.entry} on {self.name}"
        directory = tempfile.TemporaryDirectory(prefix="edgeopt-qemu-", ignore_cleanup_errors=True)
        return AgentProcess(
            command=[self._qemu, "-cpu", self.cpu.qemu, *self._python()],
            environment=self._environment(directory.name, threads),
            directory=directory,
            entry=str(engine.path.absolute()),
            timeout_s=self._timeout_s,
            title=title,
        )

    def _python_version(self) -> str:
        return platform.python_version() if self._folder is None else _finished_record(self.cpu, self._folder).python

    def _python(self) -> list[str]:
        if self._folder is None:
            return [sys.executable, "-m", "edgeopt.agent"]
        python = _finished_record(self.cpu, self._folder).python
        program = self._folder / "root" / "usr" / "bin" / f"python{python}"
        return ["-L", str(self._folder / "cpus" / self.cpu.name), str(program), "-m", "agent"]

    def _environment(self, home: str, threads: int | None) -> dict[str, str]:
        made = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        made |= {"PYTHONNOUSERSITE": "1", "HOME": home, "TMPDIR": home, "DO_NOT_TRACK": "1"}
        if threads:
            made |= {name: str(threads) for name in _THREADS}
        if self._folder is None:
            return made | {"PYTHONPATH": str(Path(edgeopt.agent.__file__).parents[2]), "PYTHONDONTWRITEBYTECODE": "1"}
        # The guest's Python compiles what it imports once, into the set-up's own folder: under emulation that is slow.
        return made | {
            "PYTHONHOME": str(self._folder / "root" / "usr"),
            "PYTHONPATH": os.pathsep.join((str(agent_copy(self._folder)), str(self._folder / "site"))),
        }


def open_emulated(
    spec: str,
    *,
    accept_new_host_key: bool,  # noqa: ARG001 - of the protocol
    devices_file: Path | None,  # noqa: ARG001
    progress: ProgressListener,  # noqa: ARG001
) -> QemuDevice:
    """The device of ``qemu:CPU``.

    Raises:
        DeviceError: There is no such CPU, or it cannot be emulated here.
    """
    return QemuDevice(find_cpu(spec.partition(":")[2].removeprefix("//")))


def agent_copy(folder: Path) -> Path:
    """The folder in the set-up that holds this version's agent, as the package ``agent``.

    Raises:
        DeviceError: It cannot be written.
    """
    source = Path(edgeopt.agent.__file__).parent
    files = {path.relative_to(source): path.read_bytes() for path in sorted(source.rglob("*.py"))}
    name = hash_bytes(b"".join(str(path).encode() + content for path, content in files.items()))[:16]
    final = folder / "agents" / name
    if final.is_dir():
        return final
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=final.parent, prefix=".", ignore_cleanup_errors=True) as partial:
            for path, content in files.items():
                file = Path(partial) / name / "agent" / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            with contextlib.suppress(FileExistsError):  # another process was first
                (Path(partial) / name).rename(final)
    except OSError as error:
        if not final.is_dir():  # "not empty" is what some systems say where another process was first
            raise DeviceError(
                "The agent cannot be copied into the set-up.", got=error, fix=f"{SETUP} --remove"
            ) from error
    return final


@cache
def qemu_version(program: str) -> tuple[str, tuple[int, int]]:
    """QEMU's version as it prints it, and its first two numbers.

    Raises:
        DeviceError: It is not on the PATH, or says something else.
    """
    where = shutil.which(program)
    if where is None:
        raise DeviceError(
            "QEMU's user mode is not installed.",
            got=f"no {program} on the PATH",
            fix="Install it: apt-get install qemu-user (Debian, Ubuntu), dnf install qemu-user (Fedora).",
        )
    try:
        answer = subprocess.run([where, "--version"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise DeviceError("QEMU does not run.", got=f"{where}: {error}") from error
    found = re.search(r"version (\d+)\.(\d+)(\.\d+)*", answer)
    if found is None:
        raise DeviceError("QEMU does not say its version.", got=f"{where}: {answer[:100]!r}")
    return found.group(0).removeprefix("version "), (int(found.group(1)), int(found.group(2)))


def _program(cpu: EmulatedCpu) -> str:
    text, numbers = qemu_version(cpu.program)
    if numbers < cpu.least_qemu:
        raise DeviceError(
            f"This QEMU is too old for {cpu.name}.",
            got=f"{cpu.program} {text}",
            fix=f"{'.'.join(map(str, cpu.least_qemu))} or newer is needed.",
        )
    return str(shutil.which(cpu.program))


def _finished(cpu: EmulatedCpu) -> Path:
    folder = store_folder(cpu.arch)
    _finished_record(cpu, folder)
    return folder


def _finished_record(cpu: EmulatedCpu, folder: Path) -> Record:
    record = read_record(folder)
    if record is None or not (folder / "cpus" / cpu.name).is_dir():
        raise DeviceError(
            f"Emulation of {cpu.arch} is not set up.",
            got=f"{folder} holds no finished set-up{' for ' + cpu.name if record else ''}",
            fix=f"Set it up once: {SETUP} --arch {cpu.arch}.",
        )
    return record
