"""One runtime per file, imported on use.

A runner's file has a function ``(path, options, threads)`` that opens an engine and gives a runner: a context manager
with ``infer(inputs)`` (as in ``core/engine.py``) and with

- ``inputs`` and ``outputs``: name → (NumPy's dtype name, dimensions: ints, and texts where one may vary);
- ``version``: the runtime's version;
- ``fallbacks``: sentences about what the runtime did on its own (optional);
- ``resize(batch)``: fix the first dimension of every input to another size (optional; only where the runtime can
  do it from what is on disk; raises a ValueError where it cannot).
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np

__all__ = ["RUNNERS", "Runner", "UnknownRuntimeError", "find_opener", "open_runner"]

RUNNERS: dict[str, str] = {
    "executorch": "runners.executorch:open_runner",
    "litert": "runners.litert:open_runner",
    "null": "runners.null:open_runner",
    "onnxruntime": "runners.onnxruntime:open_runner",
    "openvino": "runners.openvino:open_runner",
    "ort-mobile": "runners.ort_mobile:open_runner",
    "qnn": "runners.qnn:open_runner",
    "tensorrt": "runners.tensorrt:open_runner",
}
"""Runtime name → ``module:function``, the module relative to the agent's package."""

_IMPORTS: dict[str, str] = {
    "executorch": "runners.executorch:import_executorch",
    "litert": "runners.litert:import_litert",
    "onnxruntime": "runners.onnxruntime:import_onnxruntime",
    "openvino": "runners.openvino:import_openvino",
    "ort-mobile": "runners.onnxruntime:import_onnxruntime",
    "qnn": "runners.qnn:import_qnn",
    "tensorrt": "tensorrt",
}
"""What is imported (or called) beforehand, so that the time of the import is not counted as loading."""


class UnknownRuntimeError(LookupError):
    """No runner has that name."""


class Runner(Protocol):
    """An engine in memory, with what the agent needs to know about it."""

    version: str
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]

    def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once."""
        ...

    def __enter__(self) -> Runner: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def open_runner(runtime: str, path: Path, options: Mapping[str, Any], threads: int | None) -> Runner:
    """Load an engine.

    Args:
        runtime: A name in ``RUNNERS``.
        path: The engine's entry file.
        options: What the engine was compiled to be run with.
        threads: Threads of the runtime; None leaves all cores to it.

    Raises:
        UnknownRuntimeError: No such runtime.
    """
    runner: Runner = find_opener(RUNNERS, runtime)(path, options, threads)
    return runner


def find_opener(runners: Mapping[str, str], runtime: str) -> Any:
    """Import the function that opens engines of ``runtime``, and with it the runtime."""
    where = runners.get(runtime)
    if where is None:
        raise UnknownRuntimeError(f"This agent has no runtime {runtime!r}. Known: {', '.join(sorted(runners))}.")
    opener = _resolve(where)
    if where == RUNNERS.get(runtime) and runtime in _IMPORTS:
        # A runtime that is absent is for the opener to report: it says how to get it.
        with contextlib.suppress(ImportError):
            imported = _resolve(_IMPORTS[runtime])
            if ":" in _IMPORTS[runtime]:
                imported()
    return opener


def _resolve(where: str) -> Any:
    module, _, attribute = where.partition(":")
    if module.startswith("runners."):
        module = f"{__package__}.{module.partition('.')[2]}"
    loaded = importlib.import_module(module)
    return getattr(loaded, attribute) if attribute else loaded
