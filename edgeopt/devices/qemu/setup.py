"""``edgeopt devices setup qemu``: everything that emulating another architecture needs, in one folder.

It is made beside its place and renamed when the emulated runtime has answered: a set-up that was cut short goes on
where it stopped, and none is ever half there.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

from edgeopt.core.errors import DeviceError
from edgeopt.core.events import Progress, ProgressListener, ignore_progress
from edgeopt.devices.qemu.cpus import CPUS
from edgeopt.devices.qemu.debian import download, find_distribution, glibc_of, run, unpack
from edgeopt.devices.qemu.device import qemu_version
from edgeopt.devices.qemu.store import RECORD, Record, host_versions, read_record, store_folder

__all__ = ["remove", "setup", "up_to_date"]

_RUNTIMES = ("onnxruntime", "openvino")
_TEST_S = 900.0


def up_to_date(arch: str) -> Record | None:
    """The finished set-up of ``arch``, where it holds this machine's versions and every CPU of the table."""
    folder = store_folder(arch)
    record = read_record(folder)
    if record is None or any(not (folder / "cpus" / cpu.name).is_dir() for cpu in CPUS.values() if cpu.arch == arch):
        return None
    same = {name: version for name, version in host_versions().items() if name not in record.left_out}
    return record if same == record.versions else None


def setup(arch: str, progress: ProgressListener = ignore_progress) -> Record:
    """Make what emulating ``arch`` needs, unless it is there.

    Args:
        arch: ``aarch64`` or ``x86_64``.
        progress: Told of the steps.

    Raises:
        DeviceError: QEMU, apt-get or pip is not there or failed, this machine has no runtime, or what was made does
            not run.
    """
    program = f"qemu-{arch}"
    qemu_version(program)
    versions = host_versions()
    if not any(name in versions for name in _RUNTIMES):
        raise DeviceError(
            "There is no runtime here whose version the emulated one could have.",
            got=f"neither {' nor '.join(_RUNTIMES)} is installed",
            fix="pip install 'edgeopt[onnxruntime]'",
        )
    final = store_folder(arch)
    with _locked(final):
        found = up_to_date(arch)
        if found is not None:
            return found
        partial = final.with_name(f".{arch}.partial")
        record = _make(partial, arch, versions, progress)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        return record


def remove(arch: str) -> int:
    """Delete a set-up, finished or not; the bytes freed."""
    final = store_folder(arch)
    freed = 0
    for folder in (final, final.with_name(f".{arch}.partial")):
        files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
        freed += sum(path.stat().st_size for path in files)
        shutil.rmtree(folder, ignore_errors=True)
    final.with_name(f".{arch}.lock").unlink(missing_ok=True)
    return freed


@contextmanager
def _locked(final: Path) -> Iterator[None]:
    """One set-up at a time; a disk that is full or not ours becomes one clear error."""
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(final.with_name(f".{final.name}.lock")):
            yield
    except OSError as error:
        raise DeviceError(
            "The folder for emulation cannot be written.",
            got=f"{final.parent}: {error}",
            fix="Free some space (a set-up takes 400 MB), or set EDGEOPT_DATA_DIR to a folder you own.",
        ) from error


def _make(folder: Path, arch: str, versions: dict[str, str], progress: ProgressListener) -> Record:
    steps = ("fetch packages", "unpack them", "fetch wheels", "run a runtime")

    def at(step: int) -> None:
        part = steps[step] if step < len(steps) else ""
        progress(Progress(stage=f"set up {arch}", done=step, total=len(steps), part=part))

    at(0)
    distribution = find_distribution(arch)
    packages = download(folder / "apt", arch, distribution)
    at(1)
    shutil.rmtree(folder / "root", ignore_errors=True)
    python = unpack(packages, folder / "root")
    at(2)
    left_out = _wheels(folder / "site", arch, python, versions, glibc=glibc_of(packages))
    for cpu in CPUS.values():
        if cpu.arch == arch:
            _overlay(folder / "cpus" / cpu.name, cpu.cpuinfo(os.cpu_count() or 1))
    at(3)
    record = Record(
        arch=arch,
        python=python,
        distribution=f"{distribution.name} {distribution.codename}",
        versions={name: version for name, version in versions.items() if name not in left_out},
        left_out=left_out,
    )
    _try_it(folder, record)
    for fetched in ("apt", "pip"):
        shutil.rmtree(folder / fetched, ignore_errors=True)
    (folder / RECORD).write_text(record.model_dump_json(indent=1), encoding="utf-8")
    at(4)
    return record


def _wheels(site: Path, arch: str, python: str, versions: dict[str, str], *, glibc: int) -> dict[str, str]:
    """Install this machine's versions for the guest; those that there is no wheel of, and pip's reason.

    Args:
        glibc: The guest's, the number after ``2.``: PEP 600 names wheels by the oldest that they run on.

    Raises:
        DeviceError: pip is not there, or NumPy or every runtime is left out.
    """
    shutil.rmtree(site, ignore_errors=True)
    run(
        [sys.executable, "-m", "pip", "--version"], "pip, which fetches the guest's wheels, is not in this environment."
    )
    tags = [*(f"manylinux_2_{number}" for number in range(glibc, 16, -1)), "manylinux2014"]
    platforms = [word for tag in tags for word in ("--platform", f"{tag}_{arch}")]
    digits = python.replace(".", "")
    own = digits == f"{sys.version_info.major}{sys.version_info.minor}"
    command = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        *(
            "--cache-dir",
            str(site.with_name("pip")),
            "--no-deps",
            "--only-binary=:all:",
            "--upgrade",
            "--target",
            str(site),
            *platforms,
        ),
        *(
            "--implementation",
            "cp",
            "--python-version",
            digits,
            "--abi",
            f"cp{digits}",
            "--abi",
            "abi3",
            "--abi",
            "none",
        ),
        *(() if own else ("--no-compile",)),
    ]
    left_out: dict[str, str] = {}
    together = [f"{name}=={version}" for name, version in versions.items() if name not in _RUNTIMES]
    run([*command, *together], "The guest's wheels cannot be fetched.")
    for name in _RUNTIMES:
        if name in versions:
            try:
                run([*command, f"{name}=={versions[name]}"], f"There is no wheel of {name} for the guest.")
            except DeviceError as error:
                left_out[name] = str(error.got)
    if not any(name in versions and name not in left_out for name in _RUNTIMES):
        raise DeviceError(
            "No runtime of this machine can be had for the guest.",
            got="; ".join(f"{name} {versions[name]}: {why}" for name, why in left_out.items()),
        )
    return left_out


def _overlay(folder: Path, cpuinfo: str) -> None:
    """What QEMU's ``-L`` lays over the guest's root.

    ONNX Runtime looks its kernels up by what ``/proc/cpuinfo`` says of an Arm core, and dies of an x86 one's.
    """
    (folder / "proc").mkdir(parents=True, exist_ok=True)
    if cpuinfo:
        (folder / "proc" / "cpuinfo").write_text(cpuinfo, encoding="ascii")
    for name in ("bin", "lib", "lib64", "usr", "etc"):
        if (folder.parents[1] / "root" / name).exists():
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to(Path("..") / ".." / "root" / name)


def _try_it(folder: Path, record: Record) -> None:
    """Import every runtime under emulation, so that what gets its final name is known to run.

    Raises:
        DeviceError: It does not; the end of its messages is there.
    """
    cpu = next(cpu for cpu in CPUS.values() if cpu.arch == record.arch)
    runtimes = [name for name in _RUNTIMES if name in record.versions]
    code = "; ".join(f"import {name}; print('{name}', {name}.__version__)" for name in ("numpy", *runtimes))
    command = [
        *(f"qemu-{record.arch}", "-cpu", cpu.qemu, "-L", str(folder / "cpus" / cpu.name)),
        *(str(folder / "root" / "usr" / "bin" / f"python{record.python}"), "-c", code),
    ]
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(folder),
        "ORT_DISABLE_TELEMETRY": "1",
        "PYTHONHOME": str(folder / "root" / "usr"),
        "PYTHONPATH": str(folder / "site"),
        "PYTHONNOUSERSITE": "1",
    }
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_TEST_S, check=False, env=environment, cwd=folder
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeviceError("The emulated runtime does not answer.", got=error) from error
    if done.returncode:
        raise DeviceError(
            "The emulated runtime does not run.",
            got=f"exit code {done.returncode}: {' '.join(done.stderr.split()[-30:])}",
            fix=f"What was fetched is in {folder}; {' '.join(command[:3])} ran it.",
        )
