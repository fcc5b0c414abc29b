"""LiteRT: runs a ``.tflite`` file through its interpreter, with XNNPACK, which is its own default."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from .contract import RunnerError, first_useful_line
from .fixed_batch import FixedBatch
from .quiet import quietly

__all__ = ["LiteRtRunner", "import_litert", "open_runner"]


def open_runner(path: Path, options: Mapping[str, Any], threads: int | None) -> LiteRtRunner:
    """Open an engine.

    Args:
        path: The ``.tflite`` file.
        options: ``inputs``, ``outputs``, ``dynamic_batch`` and ``rows``, as ``FixedBatch`` takes them.
        threads: Of the interpreter; None: one per core.

    Raises:
        RunnerError: LiteRT is absent or refuses the file; its own words are in the message.
    """
    try:
        litert = import_litert()
    except ImportError as error:
        raise RunnerError(f"ai_edge_litert cannot be imported: {error}. Install ai-edge-litert.") from error
    try:
        with quietly():
            interpreter = litert.Interpreter(model_path=str(path), num_threads=threads or _cores())
            interpreter.allocate_tensors()
        return LiteRtRunner(interpreter, options)
    except RunnerError:
        raise
    except Exception as error:
        raise RunnerError(f"LiteRT cannot open {Path(path).name}: {first_useful_line(error)}") from error


def import_litert() -> Any:
    """LiteRT's interpreter module."""
    with quietly():
        from ai_edge_litert import interpreter  # noqa: PLC0415

    return interpreter


class LiteRtRunner:
    """An interpreter with its tensors in place."""

    def __init__(self, interpreter: Any, options: Mapping[str, Any]) -> None:
        self._interpreter = interpreter
        self._batch = FixedBatch(options)
        self.fallbacks: list[str] = []
        try:
            self.version = installed("ai-edge-litert")
        except PackageNotFoundError:
            self.version = "unknown"
        self._inputs = _ports("input", interpreter.get_input_details(), self._batch.inputs)
        self._outputs = _ports("output", interpreter.get_output_details(), self._batch.outputs)

    @property
    def inputs(self) -> Any:
        """Name → (dtype, shape)."""
        return self._batch.inputs

    @property
    def outputs(self) -> Any:
        """Name → (dtype, shape)."""
        return self._batch.outputs

    def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once.

        Raises:
            RunnerError: The inputs are not the engine's, or the run failed.
        """
        if self._interpreter is None:
            raise RunnerError("The engine is closed.")
        return self._batch.run(inputs, self._run)

    def resize(self, batch: int) -> None:
        """Run at another batch, in parts of the compiled one.

        Raises:
            BatchError: It cannot.
        """
        self._batch.resize(batch)

    def _run(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        try:
            for index, array in zip(self._inputs, arrays):
                self._interpreter.set_tensor(index, array)
            self._interpreter.invoke()
            return [self._interpreter.get_tensor(index) for index in self._outputs]  # copies
        except Exception as error:
            raise RunnerError(f"LiteRT failed while running: {first_useful_line(error)}") from error

    def __enter__(self) -> LiteRtRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._interpreter = None


def _ports(kind: str, details: Any, wanted: Mapping[str, Any]) -> list[int]:
    """Tensor numbers in the engine's order: the file's own order, its dtypes and shapes held to the manifest's."""
    found = [(np.dtype(one["dtype"]).name, [int(dim) for dim in one["shape"]]) for one in details]
    if found != [(dtype, list(shape)) for dtype, shape in wanted.values()]:
        raise RunnerError(f"The file has the {kind}s {found}, and its manifest says {list(wanted.values())}.")
    return [int(one["index"]) for one in details]


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
