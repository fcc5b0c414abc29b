"""ExecuTorch: runs a ``.pte`` program through its own Python bindings, which take and give torch tensors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from .contract import RunnerError, first_useful_line
from .fixed_batch import FixedBatch
from .quiet import quietly

__all__ = ["ExecuTorchRunner", "import_executorch", "open_runner"]

_METHOD = "forward"


def open_runner(path: Path, options: Mapping[str, Any], threads: int | None) -> ExecuTorchRunner:
    """Open an engine.

    Args:
        path: The ``.pte`` file.
        options: ``inputs``, ``outputs``, ``dynamic_batch`` and ``rows``, as ``FixedBatch`` takes them.
        threads: Of ExecuTorch's thread pool, which all programs of a process share; None: one per core.

    Raises:
        RunnerError: ExecuTorch is absent or refuses the file; its own words are in the message.
    """
    try:
        runtime, torch, version = import_executorch()
    except ImportError as error:
        raise RunnerError(
            f"executorch cannot be imported: {error}. Its Python runtime is in the package executorch; "
            "a device without Python runs the .pte with ExecuTorch's C++ runtime."
        ) from error
    try:
        with quietly():
            _set_threads(threads or _cores())
            program = runtime.load_program(Path(path))
            method = program.load_method(_METHOD)
        return ExecuTorchRunner(torch, program, method, options, version)
    except RunnerError:
        raise
    except Exception as error:
        if not runtime.backend_registry.is_available("XnnpackBackend"):
            raise RunnerError("This build of ExecuTorch has no XNNPACK backend.") from error
        raise RunnerError(f"ExecuTorch cannot open {Path(path).name}: {first_useful_line(error)}") from error


def import_executorch() -> Any:
    """ExecuTorch's runtime, torch, and ExecuTorch's version."""
    with quietly():
        import torch  # noqa: PLC0415
        from executorch.runtime import Runtime  # noqa: PLC0415

        try:
            from executorch.version import __version__ as version  # noqa: PLC0415
        except ImportError:
            version = "unknown"
        return Runtime.get(), torch, str(version).partition("+")[0]


class ExecuTorchRunner:
    """A loaded method."""

    def __init__(self, torch: Any, program: Any, method: Any, options: Mapping[str, Any], version: str) -> None:
        self._torch, self._program, self._method = torch, program, method
        self._batch = FixedBatch(options)
        self.version = version
        self.fallbacks: list[str] = []
        meta = method.metadata
        wanted = [tuple(shape) for _, shape in self._batch.inputs.values()]
        found = [tuple(meta.input_tensor_meta(index).sizes()) for index in range(meta.num_inputs())]
        if wanted != found:
            raise RunnerError(f"The program takes inputs of shapes {found}, and its manifest says {wanted}.")

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
        if self._method is None:
            raise RunnerError("The engine is closed.")
        return self._batch.run(inputs, self._run)

    def resize(self, batch: int) -> None:
        """Run at another batch, in parts of the compiled one.

        Raises:
            BatchError: It cannot.
        """
        self._batch.resize(batch)

    def _run(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        from_numpy = self._torch.from_numpy
        try:
            # torch warns of arrays that cannot be written; nothing is written here.
            given = [from_numpy(array if array.flags.writeable else array.copy()) for array in arrays]
            return [value.numpy() for value in self._method.execute(given)]  # copies, made by the bindings
        except Exception as error:
            raise RunnerError(f"ExecuTorch failed while running: {first_useful_line(error)}") from error

    def __enter__(self) -> ExecuTorchRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._method = self._program = None


def _set_threads(count: int) -> None:
    """Set the thread pool's size, which ExecuTorch has for the whole process."""
    from executorch.extension.pybindings import portable_lib as lib  # noqa: PLC0415

    if lib._threadpool_get_thread_count() != count:  # noqa: SLF001 (the only way)
        lib._unsafe_reset_threadpool(count)  # noqa: SLF001


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
