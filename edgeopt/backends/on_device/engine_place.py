"""Whether this device is what a bundle was made for: asked before anything is built.

Lies beside ``build_engine.py`` in every bundle. Standard library only, Python 3.8.
"""

from __future__ import annotations

import platform
import re
import shutil
from pathlib import Path
from typing import Any

from engine_failures import BuildError  # type: ignore[import-not-found, unused-ignore]

__all__ = ["check_place", "check_space", "satisfies"]

_WEIGHTS = (".data", ".bin", ".onnx_data")
_ROOM = 3  # engines come out no larger than so many times the model


def check_place(made_for: dict[str, Any], here: dict[str, Any]) -> None:
    """Refuse a device that the bundle was not made for.

    Args:
        made_for: As ``build.json`` has it: ``target``, ``arch``, ``compute_capability``, ``versions`` (a specifier),
            ``release`` (name, l4t, tensorrt) where the target was named with one, and ``releases`` (Jetson Linux → name).

    Raises:
        BuildError: Another kind of CPU or GPU, another release, or a TensorRT that the target does not ask for.
    """
    if not made_for:
        return
    target, release = made_for.get("target", ""), made_for.get("release") or {}
    arch = made_for.get("arch")
    if arch and platform.machine() and platform.machine() != arch:
        raise BuildError(
            f"The bundle was made for {target}, which is {arch}; this machine is {platform.machine()}. Run this on the "
            "device itself, or compile for this machine's own GPU (edgeopt targets).",
            "wrong_platform",
        )
    wanted = made_for.get("compute_capability")
    found = here.get("compute_capability")
    if wanted and found and wanted != found:
        raise BuildError(
            f"The bundle was made for {target}, compute capability {wanted}; this GPU ({here.get('gpu') or 'unnamed'}) "
            f"has {found}. Compile for a target that has it (edgeopt targets).",
            "wrong_compute_capability",
        )
    version, versions = str(here.get("tensorrt", "")), made_for.get("versions", "")
    if here.get("module") != "tensorrt":
        return  # TensorRT-RTX counts its versions on its own
    name = _release_name(here.get("l4t", ""), made_for.get("releases") or {})
    on = f" on Jetson Linux {here['l4t']}{f' ({name})' if name else ''}" if here.get("l4t") else ""
    base = target.partition("@")[0]
    if not satisfies(version, versions):
        again = f"--target {base}@{name}" if name else f"--target {base}, or a release of it"
        asked = f"{release['name']} with TensorRT {release['tensorrt']}" if release else f"TensorRT {versions}"
        raise BuildError(
            f"The bundle was made for {base} and {asked}; here is TensorRT {version}{on}. Compile again with {again}, or "
            f"install the TensorRT that it was made for. --any-version builds all the same.",
            "wrong_release" if release else "wrong_version",
        )


def check_space(model: Path, output: Path) -> None:
    """Refuse a disk that the engine will not fit on, before the minutes that a build takes.

    Raises:
        BuildError: There is less room than three times the model's size, or the folder is not there.
    """
    weights = [file for file in model.parent.iterdir() if file.suffix in _WEIGHTS and file.is_file()]
    needed = _ROOM * sum(file.stat().st_size for file in {model, *weights})
    try:
        free = shutil.disk_usage(output.parent).free
    except OSError as error:
        raise BuildError(f"Cannot write to {output.parent}: {error}.") from error
    if free < needed:
        raise BuildError(
            f"The disk is full: {free >> 20} MiB are free in {output.parent}, and the engine may need "
            f"{-(-needed >> 20)} MiB. Free space there, or write it elsewhere: --output.",
            "disk_full",
        )


def satisfies(version: str, specifier: str) -> bool:
    """Whether a version is within ``>=10.3,<12`` or ``==10.3.*``; what is neither a number nor such text is not judged.

    >>> satisfies("10.3.0.30", ">=10.3,<12"), satisfies("10.16.2", "==10.3.*"), satisfies("unknown", "<2")
    (True, False, True)
    """
    numbers = _numbers(version)
    if not numbers:
        return True
    for part in filter(None, (part.strip() for part in specifier.split(","))):
        match = re.match(r"(>=|<=|==|!=|<|>)\s*([\d.]+)(\.\*)?$", part)
        if match is None:
            continue
        sign, wanted = match[1], _numbers(match[2])
        length = len(wanted) if match[3] else max(len(wanted), len(numbers))
        a, b = (tuple((side + (0,) * length)[:length]) for side in (numbers, wanted))
        if not {">=": a >= b, "<=": a <= b, "==": a == b, "!=": a != b, "<": a < b, ">": a > b}[sign]:
            return False
    return True


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()


def _release_name(l4t: str, releases: dict[str, str]) -> str:
    """The release of this Jetson Linux: the longest beginning that fits."""
    fitting = [known for known in releases if l4t == known or l4t.startswith(known + ".")]
    return releases[max(fitting, key=len)] if l4t and fitting else ""
