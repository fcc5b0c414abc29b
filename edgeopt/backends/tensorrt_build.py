"""Runs ``build_engine.py`` in a process of its own: the script that goes to the device is the one that works here."""

from __future__ import annotations

import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeopt.backends import tensorrt_folder
from edgeopt.backends.support import installed_version
from edgeopt.core.errors import BackendError

__all__ = [
    "MULTIPLIERS",
    "RTX_CAPABILITIES",
    "BuildReport",
    "local_gpu",
    "rtx_version",
    "run_build",
    "tensorrt_version",
]

# What TensorRT-RTX 1.7 builds int8 for without that GPU; it refuses 87 (Orin), 90, 100 and 110 (Thor).
RTX_CAPABILITIES = (80, 86, 89, 120, 121)
_TIMEOUT_S = 3600
# As TensorRT-RTX's layer dump names them.
MULTIPLIERS = frozenset({"correlation", "convolution", "conv", "gemm", "matmul", "matrix_multiply"})
"""Types of kernels that multiply by weights."""
_FIND_GPU = "from edgeopt.agent.runners.engine_passport import find_gpu; print((find_gpu() or ('',))[0])"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildReport:
    """What ``build_engine.py`` said.

    Attributes:
        error: Its first error with its advice, or None.
        parsed: Whether the model was parsed, even where it could not be built.
        kind: Of that error, as ``engine_failures.FAILURES`` names it; empty where it is none of them.
        kernels: Name, type, ONNX nodes and int8 or not, of every kernel; empty where nothing was built.
    """

    version: str
    error: str | None
    parsed: bool
    kernels: tuple[Mapping[str, Any], ...]
    kind: str = ""


def rtx_version() -> str | None:
    """The installed version of TensorRT-RTX, or None."""
    return installed_version("tensorrt-rtx")


def tensorrt_version() -> str | None:
    """The installed version of full TensorRT, ``unknown`` where it came without metadata, or None."""
    version = installed_version("tensorrt", "tensorrt-cu13", "tensorrt-cu12")
    return version or ("unknown" if importlib.util.find_spec("tensorrt") else None)


def local_gpu() -> int | None:
    """The compute capability of this machine's first NVIDIA GPU, e.g. 87, or None. Asked in another process."""
    done = subprocess.run([sys.executable, "-P", "-c", _FIND_GPU], capture_output=True, text=True, check=False)
    text = done.stdout.strip()
    return int(text) if text.isdigit() else None


def run_build(*arguments: str) -> BuildReport:
    """Run the script with ``arguments`` and read its report.

    Raises:
        BackendError: The process crashed, hung, or wrote no report: TensorRT's own last words are in the message.
    """
    with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
        report = Path(folder) / "report.json"
        for file in tensorrt_folder.FOLDER_FILES:
            shutil.copyfile(file, Path(folder) / file.name)
        script = str(Path(folder) / tensorrt_folder.ENGINE_SCRIPT.name)
        # -P: the script's folder must not shadow an installed package.
        command = [sys.executable, "-P", "-W", "ignore", script, *arguments, "--report", str(report)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired as error:
            raise BackendError("TensorRT did not finish within an hour.") from error
        if done.returncode < 0:
            name = signal.Signals(-done.returncode).name
            raise BackendError("TensorRT crashed on this graph.", got=name, fix="Please report the graph to NVIDIA.")
        if not report.is_file():
            said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
            raise BackendError("The TensorRT build ended without a report.", got=said[-1])
        read = json.loads(report.read_text())
    return BuildReport(
        version=str(read["version"]),
        error=read["errors"][0] if read["errors"] else None,
        parsed="layers" in read,
        kernels=tuple(read["kernels"]),
        kind=str(read.get("kind", "")),
    )
