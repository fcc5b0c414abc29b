"""Run a bundle from Python, with its contract enforced before the runtime sees anything."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from edgeopt.bundle.contract import InputChecker
from edgeopt.bundle.layout import ENGINE
from edgeopt.bundle.load import Bundle, load_bundle, verify_files
from edgeopt.core.engine import Arrays, Engine, Runner
from edgeopt.core.errors import BundleError

__all__ = ["LoadedBundle", "load", "open_engine", "run_in_batches"]


def load(path: Path | str | Bundle, *, threads: int | None = None) -> LoadedBundle:
    """Open a bundle's engine in this process.

    Args:
        path: The bundle's folder, or what ``edgeopt.compile`` returned.
        threads: Of the runtime; None: all cores.

    Raises:
        BundleError: This is no bundle, its engine's files are not those that were written, or the engine is not built;
            then the message has the command that builds it.
        BackendError: The runtime is not installed, or refuses the engine.
    """
    bundle = path if isinstance(path, Bundle) else load_bundle(path)
    changed = [problem for problem in verify_files(bundle) if problem.path.startswith(f"{ENGINE}/")]
    if changed:
        raise BundleError(
            "The engine is not the one that was measured.",
            got="; ".join(str(problem) for problem in changed),
            fix="Copy the bundle again, or compile the model again.",
        )
    return LoadedBundle(bundle=bundle, runner=open_engine(bundle.engine, threads))


def open_engine(engine: Engine, threads: int | None) -> Runner:
    """Load an engine with its own backend.

    Raises:
        BundleError: The engine is not built.
    """
    if engine.status != "built":
        raise BundleError(
            "The engine is not built: only the target device can build it.",
            got=f"{engine.runtime} engine {engine.entry}",
            fix=f"Run on the device: {engine.next_command}" if engine.next_command else None,
        )
    from edgeopt.backends.registry import BACKENDS

    return BACKENDS[engine.runtime].load(engine, threads)


class LoadedBundle:
    """An engine in memory. A context manager; close it to free the runtime's memory.

    One thread runs at a time: calls from several threads are safe and take turns. For parallel work, load the bundle
    once per worker.
    """

    def __init__(self, *, bundle: Bundle, runner: Runner) -> None:
        self.bundle = bundle
        self._check = InputChecker(bundle.manifest.contract, bundle.engine)
        self._runner: Runner | None = runner.__enter__()
        self._lock = threading.Lock()

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the model's outputs; empty where unknown."""
        return self.bundle.manifest.contract.classes

    def predict(self, x: np.ndarray | Mapping[str, np.ndarray]) -> np.ndarray | dict[str, np.ndarray]:
        """Run the model on N samples.

        Args:
            x: An array [N, …] for a model with one input, else (or also) a dict of one array per input name. Any N ≥ 1:
                what is larger than a static engine's batch is split, what is smaller padded with its last sample.

        Returns:
            An array [N, …] for a model with one output, else a dict of one array per output name.

        Raises:
            DataError: The arrays do not fit the contract; the message says how to change them.
            BundleError: The bundle was closed.
        """
        arrays = self._check(x)
        with self._lock:
            if self._runner is None:
                raise BundleError("The bundle was closed.", fix="Load it again with edgeopt.load(path).")
            outputs = run_in_batches(self._runner, self.bundle.engine, arrays)
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs

    def close(self) -> None:
        """Free the runtime's memory. Closing twice is fine."""
        with self._lock:
            runner, self._runner = self._runner, None
            if runner is not None:
                runner.__exit__(None, None, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def run_in_batches(runner: Runner, engine: Engine, arrays: Arrays) -> dict[str, np.ndarray]:
    """Run N samples through an engine whose batch may be fixed; arrays [N, …] in, arrays [N, …] out."""
    count = len(next(iter(arrays.values())))
    size = engine.inputs[0].batch
    if not isinstance(size, int) or size == count:
        return runner.infer(arrays)
    fixed = [str(spec) for spec in engine.outputs if spec.batch != size]
    if fixed:
        raise BundleError(
            f"This engine takes {size} samples at a time, and an output that is not per sample cannot be put together.",
            got=f"{count} samples; output {', '.join(fixed)}",
            fix=f"Give exactly {size} samples.",
        )
    parts = []
    for start in range(0, count, size):
        part = {name: array[start : start + size] for name, array in arrays.items()}
        kept = min(size, count - start)
        outputs = runner.infer({name: _pad(array, size) for name, array in part.items()})
        parts.append({name: array[:kept] for name, array in outputs.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _pad(array: np.ndarray, size: int) -> np.ndarray:
    """Repeat the last sample until there are ``size``."""
    missing = size - len(array)
    return array if missing == 0 else np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])
