"""Where an engine was built, kept beside it: an engine or a timing cache of elsewhere is named before TensorRT sees it.

Self-contained on purpose: edgeopt's runner uses it, and every TensorRT bundle carries a copy beside
``build_engine.py``. Standard library only, Python 3.8.
"""

from __future__ import annotations

import ctypes
import json
import platform
import re
from pathlib import Path
from typing import Any

__all__ = ["TEGRA_RELEASE", "find_gpu", "l4t_release", "passport_of", "read_passport", "refusal", "write_passport"]

TEGRA_RELEASE = "/etc/nv_tegra_release"
_WORDS = {
    "module": "package",
    "tensorrt": "TensorRT version",
    "compute_capability": "compute capability",
    "gpu": "GPU",
    "l4t": "Jetson Linux",
    "machine": "kind of machine",
}


def passport_of(module: str, version: str, tegra_release: str = TEGRA_RELEASE, sm: int | None = None) -> dict[str, Any]:
    """Where something is being built now: what a TensorRT engine and its timing cache are tied to.

    Args:
        module: ``tensorrt`` or ``tensorrt_rtx``.
        version: Its version.
        sm: The compute capability that is built for without that GPU; None: this machine's.
    """
    found = find_gpu() if sm is None else (sm, "")
    return {
        "module": module,
        "tensorrt": version,
        "compute_capability": found[0] if found else None,
        "gpu": found[1] if found else "",
        "l4t": l4t_release(tegra_release) if sm is None else "",
        "machine": platform.machine() if sm is None else "",
    }


def write_passport(file: Path, passport: dict[str, Any]) -> None:
    """Write ``<file>.json``, with the file's size."""
    whole = dict(passport, bytes=Path(file).stat().st_size)
    beside = _beside(file)
    part = beside.with_name(beside.name + ".part")
    part.write_text(json.dumps(whole, indent=1), encoding="utf-8")
    part.replace(beside)


def read_passport(file: Path) -> dict[str, Any] | None:
    """What ``write_passport`` wrote beside ``file``; None where there is nothing that can be read."""
    try:
        found = json.loads(_beside(file).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def refusal(file: Path, here: dict[str, Any]) -> str:
    """Why ``file`` cannot be used here, by its passport; empty where nothing speaks against it.

    What either side does not know is not compared: a GPU without a name, a file without a passport.
    """
    stored = read_passport(file)
    if stored is None:
        return ""
    name, size = Path(file).name, Path(file).stat().st_size
    if isinstance(stored.get("bytes"), int) and size != stored["bytes"]:
        return f"{name} has {size} bytes; it was written with {stored['bytes']}: it is truncated or was changed."
    for key, word in _WORDS.items():
        made, now = stored.get(key), here.get(key)
        if made and now and made != now:
            return f"{name} was made with {word} {made}; here it is {now}."
    return ""


def l4t_release(file: str = TEGRA_RELEASE) -> str:
    """The number of Jetson Linux, ``36.4.3``, from ``# R36 (release), REVISION: 4.3, …``; empty on other machines."""
    try:
        text = Path(file).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    match = re.search(r"R(\d+)\s*\(release\)\s*,\s*REVISION:\s*([\d.]+)", text)
    return f"{match[1]}.{match[2]}" if match else ""


def find_gpu() -> tuple[int, str] | None:
    """Compute capability (``87``) and name of the first NVIDIA GPU, by CUDA's driver; None where there is none."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(128)
    if cuda.cuInit(0) != 0 or cuda.cuDeviceGet(ctypes.byref(device), 0) != 0:
        return None
    cuda.cuDeviceGetAttribute(ctypes.byref(major), 75, device)
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)
    cuda.cuDeviceGetName(name, 128, device)
    return major.value * 10 + minor.value, name.value.decode(errors="replace")


def _beside(file: Path) -> Path:
    return Path(file).with_name(Path(file).name + ".json")
