"""The browser that is installed here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from edgeopt.core.errors import DeviceError

__all__ = ["VARIABLE", "Chromium", "find_chromium"]

VARIABLE = "EDGEOPT_CHROMIUM"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
_HOW_TO_GET = "apt-get install chromium on Debian, or Google Chrome from its vendor"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chromium:
    """An executable, and what it calls itself: ``Chromium 156.0.8078.108``."""

    path: Path
    version: str

    @property
    def name(self) -> str:
        """Name and major version: ``Chromium 156``."""
        found = re.match(r"(?P<name>.*?)\s+(?P<major>\d+)[\d.]*", self.version)
        return f"{found['name']} {found['major']}" if found else self.version


def find_chromium() -> Chromium:
    """The browser that ``EDGEOPT_CHROMIUM`` names, else the first of the usual names on PATH.

    Raises:
        DeviceError: There is none, or it does not start.
    """
    named = os.environ.get(VARIABLE)
    found = shutil.which(named) if named else next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None and named:
        raise DeviceError(f"{VARIABLE} names no program.", got=repr(named), fix="Give the path of a Chromium.")
    if found is None:
        raise DeviceError(
            "No Chromium was found on this machine.",
            got=f"none of {', '.join(_NAMES)} on PATH",
            fix=f"Install the package chromium ({_HOW_TO_GET}), or set {VARIABLE} to its path.",
        )
    return Chromium(path=Path(found), version=_version(found))


def _version(path: str) -> str:
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise DeviceError("Chromium does not say its version.", got=f"{path}: {error}") from error
    said = re.search(r"(Chromium|Google Chrome|Microsoft Edge)[^\d\n]* \d+[\d.]*", done.stdout)
    if said is None:
        raise DeviceError(
            "The program is no Chromium.",
            got=f"{path}, which says {done.stdout.strip()[:80]!r}",
            fix=f"Set {VARIABLE} to the path of a Chromium.",
        )
    return said[0]
