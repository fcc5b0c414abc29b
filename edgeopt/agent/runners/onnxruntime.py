"""ONNX Runtime: runs ``.onnx`` and ``.ort`` files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from .contract import BatchError, Ports, RunnerError, check_inputs, first_useful_line
from .layers import ort_layers

__all__ = ["OrtRunner", "import_onnxruntime", "open_runner", "session_options"]

_LEVELS = {
    "disable": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "layout": "ORT_ENABLE_LAYOUT",
    "all": "ORT_ENABLE_ALL",
}
_DTYPES = {"float": "float32", "double": "float64"}
_LOG_ERRORS_ONLY = 3


def open_runner(path: Path, options: Mapping[str, Any], threads: int | None) -> OrtRunner:
    """Open an engine.

    Args:
        path: The ``.onnx`` or ``.ort`` file.
        options: ``providers``, ``graph_optimization_level``, ``disabled_optimizers`` and ``config`` (session
            configuration entries), as the engine was compiled with.
        threads: Intra-op threads; None lets ONNX Runtime use all cores.

    Raises:
        RunnerError: ONNX Runtime is absent or refuses the file; its own words are in the message.
    """
    try:
        ort = import_onnxruntime()
    except ImportError as error:
        raise RunnerError(f"onnxruntime cannot be imported: {error}") from error
    asked = list(options.get("providers", ["CPUExecutionProvider"]))
    there = [provider for provider in asked if provider in ort.get_available_providers()]

    def session_of(made: Any) -> Any:
        return ort.InferenceSession(
            str(path),
            sess_options=made,
            providers=there or ["CPUExecutionProvider"],
            disabled_optimizers=list(options.get("disabled_optimizers", [])) or None,
        )

    def profiled(prefix: Path) -> Any:
        made = session_options(ort, options, threads)
        made.enable_profiling = True
        made.profile_file_prefix = str(prefix)
        return session_of(made)

    try:
        session = session_of(session_options(ort, options, threads))
    except Exception as error:
        raise RunnerError(f"ONNX Runtime cannot open {Path(path).name}: {first_useful_line(error)}") from error
    return OrtRunner(session, ort.__version__, asked, profiled)


def import_onnxruntime() -> Any:
    """Import onnxruntime without its telemetry.

    From the import on, it otherwise keeps a session for Microsoft's event collector (and leaves ``.ses`` among the
    temporary files), on Linux too: ``disable_telemetry_events`` comes too late for that.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime as ort  # noqa: PLC0415

    ort.disable_telemetry_events()
    return ort


def session_options(ort: Any, options: Mapping[str, Any], threads: int | None) -> Any:
    """The ``SessionOptions`` that ``options`` and ``threads`` describe."""
    made = ort.SessionOptions()
    made.log_severity_level = _LOG_ERRORS_ONLY
    made.graph_optimization_level = getattr(
        ort.GraphOptimizationLevel, _LEVELS[options.get("graph_optimization_level", "all")]
    )
    made.intra_op_num_threads = threads or 0
    made.inter_op_num_threads = 1
    for key, value in options.get("config", {}).items():
        made.add_session_config_entry(key, str(value))
    return made


class OrtRunner:
    """A session in memory."""

    def __init__(
        self, session: Any, version: str, asked: list[str], profiled: Callable[[Path], Any] | None = None
    ) -> None:
        self._session: Any = session
        self._profiled = profiled
        self.version = version
        self.inputs: Ports = {port.name: _port(port) for port in session.get_inputs()}
        self.outputs: Ports = {port.name: _port(port) for port in session.get_outputs()}
        got = session.get_providers()
        self.fallbacks = [
            f"{provider} was asked for and is not there; {got[0]} runs instead."
            for provider in asked
            if provider not in got
        ]
        self._wanted = list(self.outputs)

    def infer(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once.

        Raises:
            RunnerError: The inputs are not the engine's, or the run failed.
        """
        if self._session is None:
            raise RunnerError("The engine is closed.")
        check_inputs(inputs, self.inputs)
        try:
            values = self._session.run(self._wanted, dict(inputs))
        except Exception as error:
            raise RunnerError(f"ONNX Runtime failed while running: {first_useful_line(error)}") from error
        return dict(zip(self._wanted, values))

    def bound(self, inputs: Mapping[str, np.ndarray]) -> Callable[[], Any]:
        """One inference on these arrays; inputs and outputs are bound once, as in an application in C++.

        Raises:
            RunnerError: The inputs are not the engine's, or the run failed.
        """
        self.infer(inputs)
        session, binding = self._session, self._session.io_binding()
        try:
            for name, array in inputs.items():
                binding.bind_cpu_input(name, np.ascontiguousarray(array))  # which the binding holds
            for name in self._wanted:
                binding.bind_output(name)
            session.run_with_iobinding(binding)
            for name, value in zip(self._wanted, binding.get_outputs()):
                binding.bind_ortvalue_output(name, value)
            session.run_with_iobinding(binding)
        except Exception:  # noqa: BLE001  types that cannot be bound: text, sequences
            return partial(self.infer, inputs)
        return partial(session.run_with_iobinding, binding)

    def layers(self, inputs: Mapping[str, np.ndarray], n: int, warmup: int) -> list[dict[str, Any]]:
        """Time each kernel, in a second session of the same engine; see ``layers.ort_layers``.

        Raises:
            RunnerError: The engine cannot be opened or run under the profiler.
        """
        if self._profiled is None:
            raise RunnerError("This engine cannot be opened under the profiler.")
        check_inputs(inputs, self.inputs)
        try:
            return ort_layers(self._profiled, inputs, n, warmup)
        except Exception as error:
            raise RunnerError(f"ONNX Runtime failed under its profiler: {first_useful_line(error)}") from error

    def resize(self, batch: int) -> None:
        """Make sure that the engine can be run at ``batch``: a dynamic batch always can.

        Raises:
            BatchError: The batch is fixed at another size.
        """
        for name, (_, shape) in self.inputs.items():
            if shape and isinstance(shape[0], int) and shape[0] != batch:
                raise BatchError(f"Input {name!r} has a fixed batch of {shape[0]}; it cannot run at {batch}.")

    def __enter__(self) -> OrtRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session = None


def _port(port: Any) -> Any:
    kind = port.type[len("tensor(") : -1] if port.type.startswith("tensor(") else port.type
    shape = [dim if isinstance(dim, int) else str(dim or "?") for dim in port.shape]
    return _DTYPES.get(kind, kind), shape
