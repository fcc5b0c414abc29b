"""What a host runs on a device before and beside the agent, sent as a program text: probe, receive, sweep.

``python3 -c TEXT COMMAND ARGUMENT...``: the standard library only, Python 3.8. The last line that it prints is its
answer, a JSON object; a failure is ``{"error": message, "errno": number}``.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from typing import Any

__all__ = ["main"]

# Runtime, as the host names it → the packages that bring it.
RUNTIMES = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"),
    "openvino": ("openvino",),
    "qnn": ("onnxruntime-qnn",),
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "tensorrt_rtx": ("tensorrt-rtx", "tensorrt_rtx"),
}
_BLOCK = 1 << 20
_DAY_S = 24 * 3600


def main(arguments: list[str]) -> int:
    """Run one command and print its answer."""
    commands: dict[str, Any] = {"probe": probe, "receive": receive, "sweep": sweep}
    try:
        answer = commands[arguments[0]](*arguments[1:])
    except OSError as error:
        answer = {"error": "{}: {}".format(error.filename or "", error.strerror or error), "errno": error.errno or 0}
    print(json.dumps(answer))  # noqa: T201 - the answer
    return 0


def probe() -> dict[str, Any]:
    """What the device is, as far as it can be told without the agent."""
    return {
        "python": platform.python_version(),
        "numpy": _version("numpy", ("numpy",)),
        "runtimes": {name: _version(name, packages) for name, packages in RUNTIMES.items()},
        "model": _read("/proc/device-tree/model").strip("\0\n "),
        "system": "android" if hasattr(sys, "getandroidapilevel") else platform.system().lower(),
        "tegra_release": _read("/etc/nv_tegra_release").partition("\n")[0].strip("# "),
        "jetpack": _said("dpkg-query", "-W", "-f", "${Version}", "nvidia-jetpack"),
        "compute_capabilities": _capabilities(),
    }


def receive(directory: str) -> dict[str, Any]:
    """Write the files that come down standard input: a line of JSON that lists them, then their contents.

    Each is written beside its place, compared with its sha256, and renamed: a half-sent file never has its name.
    """
    stream = sys.stdin.buffer
    listed = json.loads(stream.readline())
    for entry in listed:
        path = os.path.join(directory, *entry["name"].split("/"))  # noqa: PTH118 - no Path for one join
        os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
        digest, left = hashlib.sha256(), entry["bytes"]
        with open(path + ".part", "wb") as file:  # noqa: PTH123
            while left:
                block = stream.read(min(left, _BLOCK))
                if not block:
                    raise OSError(0, "the transfer ended early", path)
                file.write(block)
                digest.update(block)
                left -= len(block)
        if digest.hexdigest() != entry["sha256"]:
            raise OSError(0, "the content that arrived is not what was sent (sha256)", path)
        os.replace(path + ".part", path)  # noqa: PTH105
    return {"files": len(listed)}


def sweep(parent: str, prefix: str) -> dict[str, Any]:
    """Remove this user's directories of dead runs that nobody touched for a day."""
    removed = []
    for entry in os.scandir(parent):
        with contextlib.suppress(OSError):
            facts = entry.stat(follow_symlinks=False)
            mine = not hasattr(os, "getuid") or facts.st_uid == os.getuid()
            old = time.time() - _last_touched(entry.path) > _DAY_S
            if entry.name.startswith(prefix) and entry.is_dir(follow_symlinks=False) and mine and old:
                shutil.rmtree(entry.path)
                removed.append(entry.name)
    return {"removed": removed}


def _last_touched(directory: str) -> float:
    """When anything directly in it changed: a run that is alive writes its lease again at each connection."""
    return max([os.stat(directory).st_mtime, *(entry.stat().st_mtime for entry in os.scandir(directory))])  # noqa: PTH116


def _version(module: str, packages: tuple[str, ...]) -> str | None:
    """Of the first package that is installed; of the module itself where it came without metadata."""
    from importlib import metadata, util  # noqa: PLC0415

    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            return str(metadata.version(package))
    if util.find_spec(module) is None:
        return None
    # Asked in another process: a runtime may print, or crash, when it is imported.
    told = _said(sys.executable, "-c", f"import {module}; print({module}.__version__)")
    return told.splitlines()[-1] if told else None


def _capabilities() -> list[int]:
    """The compute capabilities (87 for 8.7) of the NVIDIA GPUs whose driver answers."""
    told = _said("nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader")
    found = {line.strip().replace(".", "") for line in told.splitlines()}
    numbers = {int(text) for text in found if text.isdigit()}
    if not numbers:  # a Jetson has no nvidia-smi before JetPack 6, or one that does not say
        with contextlib.suppress(OSError, AttributeError):
            numbers = _from_driver(ctypes.CDLL("libcuda.so.1"))
    return sorted(numbers)


def _from_driver(cuda: Any) -> set[int]:
    """``cuDeviceGetAttribute`` 75 and 76: the compute capability's two numbers (CUDA driver API)."""
    count, device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return set()
    numbers = set()
    for index in range(count.value):
        if cuda.cuDeviceGet(ctypes.byref(device), index) == 0:
            cuda.cuDeviceGetAttribute(ctypes.byref(major), 75, device)
            cuda.cuDeviceGetAttribute(ctypes.byref(minor), 76, device)
            numbers.add(major.value * 10 + minor.value)
    return numbers


def _said(*command: str) -> str:
    """What a program prints; nothing where it is not there or fails."""
    try:
        done = subprocess.run(list(command), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=30, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else ""


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            return file.read()
    except OSError:
        return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
