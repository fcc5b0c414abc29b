"""TensorRT: runs a ``.plan`` on the device that built it.

Honesty: edgeopt's authors had no NVIDIA GPU; see ``tensorrt_execution.py`` for what was and was not exercised.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from .contract import BatchError, Ports, RunnerError, check_inputs, first_useful_line
from .tensorrt_execution import CudaError, Execution

__all__ = ["TensorRTRunner", "open_runner"]


def open_runner(path: Path, options: Mapping[str, Any], threads: int | None) -> TensorRTRunner:
    """Open an engine.

    Args:
        path: The engine file.
        options: ``module``: ``tensorrt`` or ``tensorrt_rtx``, whichever built it.
        threads: Has no meaning on a GPU; ignored.

    Raises:
        RunnerError: The engine was not built yet, TensorRT or the GPU is absent, or it refuses the file.
    """
    del threads
    if not Path(path).is_file():
        raise RunnerError(f"{Path(path).name} is not built. Run build_engine.py, which lies beside it, on the device.")
    try:
        execution = Execution(str(path), str(options.get("module", "tensorrt")))
    except ImportError as error:
        raise RunnerError(f"TensorRT is not usable here: {error}") from error
    except Exception as error:
        raise RunnerError(f"TensorRT cannot open {Path(path).name}: {first_useful_line(error)}") from error
    return TensorRTRunner(execution)


class TensorRTRunner:
    """An engine in the GPU's memory."""

    def __init__(self, execution: Execution) -> None:
        self._execution: Execution | None = execution
        self.version = execution.version
        self.inputs: Ports = _ports(execution.inputs)
        self.outputs: Ports = _ports(execution.outputs)
        self.fallbacks: list[str] = []
        self._range = execution.batch_range

    def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once: copy in, infer, copy out.

        Raises:
            RunnerError: The inputs are not the engine's, or the run failed.
        """
        if self._execution is None:
            raise RunnerError("The engine is closed.")
        check_inputs(inputs, self.inputs)
        try:
            return self._execution.run(inputs)
        except CudaError as error:
            raise RunnerError(f"TensorRT failed while running: {first_useful_line(error)}") from error

    def resize(self, batch: int) -> None:
        """Make sure that the engine's profile covers ``batch``.

        Raises:
            BatchError: It does not.
        """
        if self._range is not None:
            low, high = self._range
            if not low <= batch <= high:
                raise BatchError(f"The engine was built for batches from {low} to {high}; it cannot run at {batch}.")
            return
        for name, (_, shape) in self.inputs.items():
            if shape and shape[0] != batch:
                raise BatchError(f"Input {name!r} has a fixed batch of {shape[0]}; it cannot run at {batch}.")

    def __enter__(self) -> TensorRTRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._execution is not None:
            self._execution.close()
        self._execution = None


def _ports(tensors: Mapping[str, tuple[str, list[int]]]) -> Ports:
    return {name: (dtype, [dim if dim >= 0 else "?" for dim in shape]) for name, (dtype, shape) in tensors.items()}
