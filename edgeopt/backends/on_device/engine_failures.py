"""What goes wrong when a TensorRT engine is built or opened on a device, and what to do about it.

Lies beside ``build_engine.py`` in every bundle. Standard library only, Python 3.8.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable
from typing import Any

__all__ = ["FAILURES", "BuildError", "explain", "failure", "from_os_error"]

# Kind → (what TensorRT, CUDA or Python says, what to do). The first match wins.
FAILURES = {
    "plugin_missing": (
        r"plugin not found|plugin creator|getplugincreator|custom (op|layer)|no plugin",
        (
            "TensorRT has no such operator of its own and no plug-in for it: upgrade TensorRT, replace the operator in "
            "the model, or load its library: --plugin LIBRARY.so."
        ),
    ),
    "unsupported_operator": (
        r"no importer|unsupported.*operator|unsupported_node|not implemented|no implementation",
        "The operator is not in this TensorRT version's list: upgrade TensorRT, or replace the operator in the model.",
    ),
    "no_profile": (
        r"profile",
        "The input is dynamic and the profile does not cover it: set --min-batch, --opt-batch and --max-batch.",
    ),
    "disk_full": (
        r"no space left|disk quota|enospc",
        "Free space where the engine is written, or write it elsewhere: --output.",
    ),
    "out_of_memory": (
        r"out of memory|outofmemory|insufficient memory|cudamalloc|allocat",
        "Free memory (stop the desktop; on a Jetson add swap), or lower --workspace-mib or --max-batch.",
    ),
    "zero_point": (
        r"zero.?point|shiftisallzeros",
        "TensorRT takes symmetric int8 only: compile for this target with edgeopt, which writes that dialect.",
    ),
    "no_gpu": (
        r"insufficient driver|cuda initialization|cuda.*error:? \(?(35|100|999)\b|no cuda|with error (35|100|999)\b",
        "No usable NVIDIA GPU or driver: run this on the device itself (in a container: with NVIDIA's runtime).",
    ),
    "wrong_compute_capability": (
        r"unsupported sm|compute capability|not supported on this (gpu|platform)|target gpu",
        "This TensorRT version does not know this GPU: install the one that belongs to the device's JetPack or driver.",
    ),
    "dla": (
        r"\bdla\b",
        "The DLA cannot take it: build for the GPU with --no-dla, or compile without the option dla.",
    ),
    "damaged_model": (
        r"parsefromcodedstream|failed to parse the onnx model|failed to parse onnx model|open file failed",
        "The ONNX file is damaged or cut short: copy the bundle's folder again (`edgeopt verify` checks its hashes).",
    ),
    "opset": (
        r"opset|ir.?version",
        "This TensorRT version may be too old for the file's ONNX opset: upgrade it, or compile with a lower opset.",
    ),
    "other_version": (
        r"version|serializ|platform|cannot read|magic",
        "An engine belongs to one TensorRT version and one GPU: build it again here.",
    ),
}


class BuildError(Exception):
    """The engine cannot be built or opened; the message says why and what to do.

    Attributes:
        kind: A key of ``FAILURES``, or one of ``wrong_platform``, ``wrong_release``, ``wrong_version``,
            ``missing_package``, ``truncated``; empty where it is none of these.
    """

    def __init__(self, message: str, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind


def explain(text: str) -> tuple[str, str]:
    """The kind of a failure, and what to do about it; two empty texts where it is none that is known."""
    for kind, (pattern, advice) in FAILURES.items():
        if re.search(pattern, text, re.IGNORECASE):
            return kind, advice
    return "", ""


def failure(what: str, errors: Iterable[str]) -> BuildError:
    """An error with TensorRT's first message and what to do about it."""
    lines = (line.strip() for error in errors for line in error.splitlines() if line.strip())
    first = next(lines, "it gave no reason")
    kind, advice = explain(first)
    return BuildError(f"{what}: {first.rstrip('.')}. {advice}".strip(), kind)


def from_os_error(what: Any, error: OSError) -> BuildError:
    """A file that cannot be written, read or listed."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return BuildError(f"Cannot write {what}: the disk is full. {FAILURES['disk_full'][1]}", "disk_full")
    return BuildError(f"Cannot write {what}: {error}.")
