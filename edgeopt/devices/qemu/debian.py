"""Python and the C libraries of another architecture, from Debian's or Ubuntu's packages, without root.

apt-get resolves, downloads and checks signatures, with every one of its folders inside ours; dpkg-deb unpacks.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from edgeopt.core.errors import DeviceError

__all__ = ["Distribution", "download", "find_distribution", "glibc_of", "run", "unpack"]

_PACKAGES = ("python3-minimal", "libpython3-stdlib", "libstdc++6", "libgomp1")
_ARCHITECTURES = {"aarch64": "arm64", "x86_64": "amd64"}
_DEBIAN, _PORTS = "http://deb.debian.org/debian", "http://ports.ubuntu.com/ubuntu-ports"
_KEYRING = "/usr/share/keyrings/{}-archive-keyring.gpg"
_SOURCES = (Path("/etc/apt/sources.list"), Path("/etc/apt/sources.list.d"))
_LIMIT_S = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """Where packages come from.

    Attributes:
        name: ``debian`` or ``ubuntu``.
        codename: ``bookworm``.
        mirror: URL of its archive, for the guest's architecture.
    """

    name: str
    codename: str
    mirror: str

    @property
    def source(self) -> str:
        """The line for apt."""
        keyring = Path(_KEYRING.format(self.name))
        signed = f"[signed-by={keyring}] " if keyring.is_file() else ""
        suites = "main universe" if self.name == "ubuntu" else "main"
        return f"deb {signed}{self.mirror} {self.codename} {suites}\n"


def find_distribution(arch: str) -> Distribution:
    """This machine's own distribution, and the mirror of it that this machine uses.

    Raises:
        DeviceError: It is none of Debian's kind, or apt-get and dpkg-deb are not there.
    """
    facts = _os_release()
    kind = facts.get("ID", "")
    codename = facts.get("VERSION_CODENAME", "")
    missing = [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]
    if missing or kind not in ("debian", "ubuntu") or not codename:
        raise DeviceError(
            "Emulation of another architecture is set up from Debian's or Ubuntu's packages.",
            got=f"{facts.get('PRETTY_NAME', platform.system())}"
            + (f", without {', '.join(missing)}" if missing else ""),
            fix="Run edgeopt on one of them, or in a container of one.",
        )
    if kind == "ubuntu":  # whose main archive holds x86 alone
        mirror = "http://archive.ubuntu.com/ubuntu" if arch == "x86_64" else _PORTS
    else:
        mirror = _mirror_in_use() or _DEBIAN
    return Distribution(name=kind, codename=codename, mirror=mirror)


def download(folder: Path, arch: str, distribution: Distribution) -> list[Path]:
    """Fetch the packages of ``arch`` into ``folder``; what is there already, whole or in part, is not fetched again.

    Raises:
        DeviceError: apt-get failed; its last words are in the message.
    """
    parts, lists, archives = folder / "sources", folder / "lists", folder / "cache" / "archives"
    for each in (parts, lists / "partial", archives / "partial"):
        each.mkdir(parents=True, exist_ok=True)
    (folder / "status").touch()
    (parts / "own.list").write_text(distribution.source)
    debian = _ARCHITECTURES[arch]
    options = {
        "APT::Architecture": debian,
        "APT::Architectures": debian,
        "APT::Sandbox::User": "root",  # the usual one may not read our folder
        "Dir::State": folder,
        "Dir::State::status": folder / "status",
        "Dir::State::lists": lists,
        "Dir::Cache": folder / "cache",
        "Dir::Etc::SourceList": os.devnull,
        "Dir::Etc::SourceParts": parts,
        "Dir::Log": folder,
        "Acquire::Languages": "none",
        "Acquire::Retries": 3,
    }
    given = [f"-o{key}={value}" for key, value in options.items()]
    run(["apt-get", *given, "-qq", "update"], "The list of packages cannot be fetched.")
    wanted = ["-qq", "--yes", "--download-only", "--no-install-recommends", "install", *_PACKAGES]
    run(["apt-get", *given, *wanted], "The packages cannot be fetched.")
    found = sorted(archives.glob("*.deb"))
    if not found:
        raise DeviceError("apt-get fetched nothing.", got=f"for {', '.join(_PACKAGES)} of {debian}")
    return found


def unpack(packages: list[Path], root: Path) -> str:
    """Unpack into ``root``; the version of the Python that is then there, e.g. ``3.11``.

    Raises:
        DeviceError: A package is broken, or there is no Python in them.
    """
    root.mkdir(parents=True, exist_ok=True)
    for package in packages:
        run(["dpkg-deb", "--extract", str(package), str(root)], f"{package.name} cannot be unpacked.")
    found = sorted(path.name.removeprefix("python") for path in (root / "usr" / "bin").glob("python3.*[0-9]"))
    if not found:
        raise DeviceError("The packages hold no Python.", got=f"{len(packages)} packages in {root}")
    return found[-1]


def glibc_of(packages: list[Path]) -> int:
    """The guest's C library, the number after ``2.``, by the name of its package: ``libc6_2.36-9_arm64.deb``.

    Raises:
        DeviceError: It is not among the packages.
    """
    found = [re.match(r"libc6_2\.(\d+)", package.name) for package in packages]
    numbers = [int(match.group(1)) for match in found if match]
    if not numbers:
        raise DeviceError("The packages hold no C library.", got=", ".join(package.name for package in packages))
    return numbers[0]


def run(command: list[str], what: str) -> str:
    """Run a program to its end; its output.

    Raises:
        DeviceError: With ``what``, and the program's last lines.
    """
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_LIMIT_S, check=False, env=environment
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DeviceError(what, got=error) from error
    if done.returncode:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        said = [line for line in lines if line.startswith(("E:", "ERROR:"))] or lines
        raise DeviceError(what, got="; ".join(said[-4:]) or f"exit code {done.returncode}")
    return done.stdout


def _os_release() -> dict[str, str]:
    try:
        return platform.freedesktop_os_release()
    except OSError:
        return {}


def _mirror_in_use() -> str:
    """The first archive that this machine's apt is set to; a mirror may be all that it reaches."""
    files = [path for place in _SOURCES for path in ([place] if place.is_file() else sorted(place.glob("*.*")))]
    for file in files:
        try:
            text = file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        found = re.search(r"^(?:URIs:\s*|deb\s+(?:\[[^\]]*\]\s+)?)(https?://\S+?/debian/?)(?:\s|$)", text, re.MULTILINE)
        if found:
            return found.group(1)
    return ""
