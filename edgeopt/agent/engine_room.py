"""What the agent does with its one engine: load it, time it, run it over data."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .energy import measured_energy
from .loops import arrivals, timed, warmed
from .memory import MemoryMeter
from .runners import Runner, find_opener
from .state import read_state

__all__ = ["BatchError", "EngineRoom"]


class BatchError(ValueError):
    """The engine was compiled for another batch and cannot be reshaped."""


class InputError(ValueError):
    """The arrays sent do not fit the engine's inputs."""


class OrderError(RuntimeError):
    """The requests came in an order that means nothing."""


class EngineRoom:
    """One engine and the inputs it is timed with. Its methods are the requests of ``protocol.py``."""

    def __init__(self, runners: Mapping[str, str]) -> None:
        self._runners = runners
        self._runner: Runner | None = None
        self._memory = MemoryMeter()
        self._current: dict[str, np.ndarray] = {}
        self._call: Callable[[], Any] | None = None  # one inference on them
        self._load_ms: float | None = None
        self._batch: int | None = None

    def load(
        self, runtime: str, entry: str, options: Mapping[str, Any] | None = None, threads: int | None = None
    ) -> dict[str, Any]:
        """Import the runtime, then open the engine; the two are timed apart."""
        if self._runner is not None:
            raise OrderError("This agent has an engine already: start another process for another engine.")
        start = time.perf_counter_ns()
        opener = find_opener(self._runners, runtime)
        import_ms = _ms_since(start)
        gc.collect()
        self._memory.start()
        start = time.perf_counter_ns()
        runner = opener(Path(entry), options or {}, threads)
        runner.__enter__()
        self._load_ms = _ms_since(start)
        self._memory.loaded()
        self._runner = runner
        return {
            "import_ms": import_ms,
            "load_ms": self._load_ms,
            "runtime_version": str(runner.version),
            "inputs": _plain(runner.inputs),
            "outputs": _plain(runner.outputs),
            "fallbacks": [str(text) for text in getattr(runner, "fallbacks", ())],
        }

    def first(self, inputs: str) -> dict[str, Any]:
        """The first inference; its time and that of the load make the cold start."""
        runner = self._ready()
        if self._load_ms is None:
            raise OrderError("The first inference has been run already.")
        arrays = self._read(inputs)
        self._resize(_samples(arrays))
        load_ms, self._load_ms = self._load_ms, None
        start = time.perf_counter_ns()
        runner.infer(arrays)
        first_ms = _ms_since(start)
        self._current, self._call = arrays, None
        return {"cold_start_ms": load_ms + first_ms, "load_ms": load_ms, "first_ms": first_ms}

    def inputs(self, inputs: str, batch: int) -> dict[str, Any]:
        """Choose what ``warm`` and ``time`` run on: the first ``batch`` samples of the file."""
        self._ready()
        arrays = self._read(inputs)
        if _samples(arrays) < batch:
            raise InputError(f"The file holds {_samples(arrays)} samples, fewer than the batch of {batch}.")
        self._resize(batch)
        self._current = {name: np.ascontiguousarray(array[:batch]) for name, array in arrays.items()}
        self._call = None
        return {"batch": batch}

    def warm(self, n: int, within_pct: float | None = None, most: int = 0, limit_s: float = 0.0) -> dict[str, Any]:
        """Run ``n`` times, untimed; on, until it is steady, where ``within_pct`` says what steady is."""
        return warmed(self._one(), n, within_pct, most, limit_s)

    def time(self, n: int, per: int = 1) -> dict[str, Any]:
        """Run ``n`` queries of ``per`` inferences and time each query."""
        own = getattr(self._ready(), "last_ns", None)
        return {**timed(self._one(), n, per, own), "rss_mib": read_state().get("rss_mib")}

    def layers(self, n: int, warmup: int) -> dict[str, Any]:
        """Time each layer over ``n`` inferences, under the runtime's own profiler."""
        runner, arrays = self._ready(), self._inputs()
        timed_layers = getattr(runner, "layers", None)
        if timed_layers is None:
            return {"unavailable": f"the runner {type(runner).__name__} has no profiler"}
        return {"layers": timed_layers(arrays, n, warmup)}

    def serve(self, schedule_ns: Sequence[int]) -> dict[str, Any]:
        """Run once for each arrival of a schedule."""
        return arrivals(self._one(), schedule_ns)

    def energy(self, seconds: float) -> dict[str, Any]:
        """Run for so long, and read the machine's energy counters before and after."""
        return measured_energy(self._one(), seconds)

    def infer(self, inputs: str, outputs: str, batch: int) -> dict[str, Any]:
        """Run every sample of a file in batches and write the outputs to another."""
        runner = self._ready()
        arrays = self._read(inputs)
        self._resize(batch)
        self._load_ms, self._call = None, None
        count = _samples(arrays)
        parts: dict[str, list[np.ndarray]] = {}
        for start in range(0, count, batch):
            size = min(batch, count - start)
            given = {name: _padded(array[start : start + size], batch) for name, array in arrays.items()}
            for name, result in runner.infer(given).items():
                if result.ndim == 0 or len(result) != batch:
                    raise InputError(
                        f"Output {name!r} has shape {list(result.shape)} for a batch of {batch}: its first dimension "
                        "is not the batch, so its rows cannot be told apart by sample."
                    )
                parts.setdefault(name, []).append(np.array(result[:size]))  # a copy: runtimes reuse their buffers
        with open(outputs, "wb") as file:  # noqa: PTH123 - savez would append .npz to a name
            np.savez(file, **{name: np.concatenate(results) for name, results in parts.items()})  # type: ignore[arg-type]
        return {"samples": count}

    def memory(self) -> dict[str, Any]:
        """The peaks so far."""
        return self._memory.report()

    def close(self) -> None:
        """Release the engine."""
        runner, self._runner, self._call = self._runner, None, None
        if runner is not None:
            runner.__exit__(None, None, None)

    def _ready(self) -> Runner:
        if self._runner is None:
            raise OrderError("No engine is loaded yet.")
        return self._runner

    def _one(self) -> Callable[[], Any]:
        """One inference on the current inputs, bound once where the runner can."""
        runner, arrays = self._ready(), self._inputs()
        self._load_ms = None
        if self._call is None:
            bind = getattr(runner, "bound", None)
            self._call = partial(runner.infer, arrays) if bind is None else bind(arrays)
        return self._call

    def _inputs(self) -> dict[str, np.ndarray]:
        if not self._current:
            raise OrderError("No inputs were chosen yet: send 'inputs' or 'first' before.")
        return self._current

    def _read(self, file: str) -> dict[str, np.ndarray]:
        """Read a file's arrays, and hold them to the engine's inputs: names, dtypes, equal sample counts."""
        expected = self._ready().inputs
        with np.load(file, allow_pickle=False) as archive:
            if set(archive.files) != set(expected):
                raise InputError(f"The engine's inputs are {sorted(expected)}; received {sorted(archive.files)}.")
            arrays = {name: archive[name] for name in expected}
        for name, array in arrays.items():
            if array.dtype != np.dtype(expected[name][0]):
                raise InputError(f"Input {name!r} is {expected[name][0]}; received {array.dtype}.")
        if len({len(array) if array.ndim else 0 for array in arrays.values()}) != 1 or not _samples(arrays):
            shapes = {name: list(array.shape) for name, array in arrays.items()}
            raise InputError(f"All inputs must hold the same number of samples, at least one; received {shapes}.")
        return arrays

    def _resize(self, batch: int) -> None:
        runner = self._ready()
        shapes = [shape for _, shape in runner.inputs.values() if shape]
        fixed = {shape[0] for shape in shapes if isinstance(shape[0], int)}
        if not fixed or fixed == {batch}:
            return
        resize = getattr(runner, "resize", None)
        compiled = ", ".join(str(n) for n in sorted(fixed))
        if resize is None:
            raise BatchError(f"The engine is compiled for a batch of {compiled} and cannot take {batch}.")
        try:
            resize(batch)
        except ValueError as error:
            raise BatchError(f"The engine is compiled for a batch of {compiled}; {batch}: {error}") from error


def _padded(array: np.ndarray, batch: int) -> np.ndarray:
    if len(array) == batch:
        return np.ascontiguousarray(array)
    return np.concatenate([array, np.repeat(array[-1:], batch - len(array), axis=0)])


def _samples(arrays: Mapping[str, np.ndarray]) -> int:
    first = next(iter(arrays.values()))
    return len(first) if first.ndim else 0


def _plain(ports: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: {"dtype": str(dtype), "shape": [n if isinstance(n, str) else int(n) for n in shape]}
        for name, (dtype, shape) in ports.items()
    }


def _ms_since(start: int) -> float:
    return (time.perf_counter_ns() - start) / 1e6
