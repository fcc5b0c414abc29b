"""onnxruntime-web: the part of npm's package that a page needs, in a folder of edgeopt's."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path

from packaging.version import InvalidVersion, Version
from pydantic import BaseModel, ConfigDict, ValidationError

from edgeopt.core.errors import DeviceError
from edgeopt.core.fingerprint import hash_file
from edgeopt.devices.data_folder import data_folder

__all__ = [
    "PACKAGE",
    "WebRuntime",
    "best_version",
    "find_runtime",
    "install_runtime",
    "remove_runtime",
    "runtime_folder",
]

PACKAGE = "onnxruntime-web"
_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
"""Of ``dist/``: the build for WebAssembly alone, without WebGPU's and WebNN's."""
_OLDEST = Version("1.23")  # the first whose sessions tell the types and shapes of their inputs
_RECORD = "setup.json"
_TIMEOUT_S = 600
_SETUP = "edgeopt devices setup browser"


class WebRuntime(BaseModel):
    """What a finished set-up holds.

    Attributes:
        version: Of onnxruntime-web.
        host_version: Of the onnxruntime that it was chosen beside; empty where there was none.
        integrity: Of the package's archive, as the registry has it (Subresource Integrity).
        files: Name → sha256.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    host_version: str
    integrity: str
    files: dict[str, str]


def runtime_folder() -> Path:
    """Below ``data_folder()``, onnxruntime-web's."""
    return data_folder() / "browser" / PACKAGE


def find_runtime(folder: Path | None = None) -> WebRuntime:
    """What is set up, its files held to their hashes.

    Raises:
        DeviceError: Nothing is, or files are missing or not what was installed.
    """
    folder = folder or runtime_folder()
    try:
        record = WebRuntime.model_validate_json((folder / _RECORD).read_text(encoding="utf-8"))
    except OSError:
        raise DeviceError(f"{PACKAGE} is not set up yet.", got=f"no {folder}", fix=f"Run {_SETUP}, once.") from None
    except ValidationError as error:
        raise DeviceError(f"The set-up of {PACKAGE} is damaged.", got=folder, fix=f"Run {_SETUP}.") from error
    for name, expected in record.files.items():
        if not (folder / name).is_file() or hash_file(folder / name) != expected:
            raise DeviceError(
                f"A file of {PACKAGE} is missing or was changed.", got=folder / name, fix=f"Run {_SETUP}."
            )
    return record


def install_runtime(wanted: str | None = None, folder: Path | None = None) -> WebRuntime:
    """Get onnxruntime-web through npm, and put what a page needs of it into ``folder``; what was there is replaced.

    Args:
        wanted: A version; None: ``best_version`` for the onnxruntime of this Python.

    Raises:
        DeviceError: npm is missing or failed, there is no such version, or the archive is not what the registry says.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise DeviceError(
            "npm was not found on this machine.", got="none on PATH", fix="Install Node.js, which brings npm."
        )
    folder = folder or runtime_folder()
    host = _host_version()
    wanted = wanted or best_version(_asked(npm, "view", PACKAGE, "versions"), host)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=folder.parent) as scratch:
            archive, integrity = _packed(npm, wanted, Path(scratch))
            made = Path(scratch) / "made"
            made.mkdir()
            _extract(archive, made)
            record = WebRuntime(
                version=wanted,
                host_version=host,
                integrity=integrity,
                files={name: hash_file(made / name) for name in _FILES},
            )
            (made / _RECORD).write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")
            shutil.rmtree(folder, ignore_errors=True)
            made.rename(folder)
    except OSError as error:
        raise DeviceError(
            f"{PACKAGE} cannot be put into {folder}.", got=error, fix="Set EDGEOPT_DATA_DIR to a folder you own."
        ) from error
    return record


def remove_runtime(folder: Path | None = None) -> bool:
    """Delete what was set up; returns whether there was anything."""
    folder = folder or runtime_folder()
    there = folder.is_dir()
    shutil.rmtree(folder, ignore_errors=True)
    return there


def best_version(versions: object, host: str) -> str:
    """The newest release that is no newer than the onnxruntime here; the newest of all where there is none.

    Both read the same graphs then. npm's releases come less often than PyPI's, so the two seldom are equal.

    Args:
        versions: As npm lists them.
        host: The version of onnxruntime; empty where it is not installed.

    Raises:
        DeviceError: No release will do.

    >>> best_version(["1.29.0", "1.30.0", "1.31.0-dev.20260914-8d85527a0", "1.33.0"], "1.32.0")
    '1.30.0'
    """
    listed = [versions] if isinstance(versions, str) else versions if isinstance(versions, list) else []
    releases = []
    for text in listed:
        try:
            found = Version(str(text))
        except InvalidVersion:
            continue  # a nightly: 1.31.0-dev.20260914-8d85527a0
        if not found.is_prerelease and found >= _OLDEST:
            releases.append(found)
    here = Version(host) if host else None
    fitting = [release for release in releases if here is None or release.release[:2] <= here.release[:2]]
    if not fitting:
        got = ", ".join(map(str, sorted(releases))) or "none"
        raise DeviceError(
            f"No release of {PACKAGE} fits onnxruntime {host} here.",
            got=f"{got} ({_OLDEST} is the oldest that will do)",
        )
    return str(max(fitting))


def _host_version() -> str:
    for name in ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"):
        try:
            return installed_version(name)
        except PackageNotFoundError:
            continue
    return ""


def _packed(npm: str, wanted: str, scratch: Path) -> tuple[Path, str]:
    """The package's archive, and its integrity as the registry has it."""
    said = _asked(npm, "view", f"{PACKAGE}@{wanted}", "dist.integrity")
    if not isinstance(said, str) or not said.startswith("sha512-"):
        raise DeviceError(
            f"npm knows no integrity of {PACKAGE} {wanted}.", got=repr(said), fix="Is there such a version?"
        )
    _run(npm, "pack", f"{PACKAGE}@{wanted}", "--pack-destination", str(scratch), "--ignore-scripts")
    archives = list(scratch.glob("*.tgz"))
    if len(archives) != 1:
        raise DeviceError(f"npm brought no archive of {PACKAGE} {wanted}.", got=f"{len(archives)} files")
    digest = base64.b64encode(hashlib.sha512(archives[0].read_bytes()).digest()).decode()
    if f"sha512-{digest}" != said:
        raise DeviceError(
            f"The archive of {PACKAGE} {wanted} is not what the registry says.",
            got=f"sha512-{digest}",
            fix=f"Not {said}.",
        )
    return archives[0], said


def _extract(archive: Path, folder: Path) -> None:
    """The files that are needed, by their names alone."""
    try:
        with tarfile.open(archive) as tar:
            members = {name: tar.extractfile(f"package/dist/{name}") for name in _FILES}
            contents = {name: member.read() for name, member in members.items() if member is not None}
    except (tarfile.TarError, KeyError) as error:
        raise DeviceError(f"The archive of {PACKAGE} does not hold what a page needs.", got=error) from error
    for name, content in contents.items():
        (folder / name).write_bytes(content)


def _asked(npm: str, *arguments: str) -> object:
    """What npm answers, as JSON has it."""
    answer = _run(npm, *arguments, "--json")
    try:
        found: object = json.loads(answer)
    except ValueError as error:
        raise DeviceError("npm did not answer with JSON.", got=repr(answer[:200])) from error
    return found


def _run(npm: str, *arguments: str) -> str:
    try:
        done = subprocess.run([npm, *arguments], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise DeviceError("npm could not be run.", got=error) from error
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise DeviceError(f"npm {' '.join(arguments[:2])} failed.", got="; ".join(lines[:3]) or done.returncode)
    return done.stdout
