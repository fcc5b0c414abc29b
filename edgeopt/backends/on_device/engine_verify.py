# ruff: noqa: T201
"""Runs the reference inputs of a bundle through its engine, and compares.

Lies beside ``build_engine.py`` in every bundle. Needs NumPy, Python 3.8.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from engine_failures import BuildError, failure  # type: ignore[import-not-found, unused-ignore]

__all__ = ["verify"]

HERE = Path(__file__).resolve().parent


def verify(args: argparse.Namespace, module: str) -> dict[str, Any]:
    """Run ``reference_inputs.npz`` and compare with ``reference_outputs.npz``, both beside this script.

    Raises:
        BuildError: A file is missing, or the engine does not run.
    """
    try:
        import numpy as np  # noqa: PLC0415
        from tensorrt_execution import Execution  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415
    except ImportError as error:
        raise BuildError(f"--verify needs NumPy and tensorrt_execution.py beside this script: {error}.") from error
    files = [HERE / "reference_inputs.npz", HERE / "reference_outputs.npz"]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise BuildError(f"--verify needs {' and '.join(missing)} beside this script.")
    inputs, expected = (dict(np.load(file, allow_pickle=False)) for file in files)
    try:
        with Execution(args.output, module) as execution:
            got = run_all(execution, inputs)
    except (RuntimeError, ImportError, ValueError) as error:
        raise failure("The engine does not run", [str(error)]) from error
    rows, passed = [], True
    for name, want in expected.items():
        a, b = want.astype("float64").ravel(), got[name].astype("float64").ravel()
        norm = float(np.linalg.norm(a) * np.linalg.norm(b))
        cosine = float(a @ b) / norm if norm else float(np.array_equal(a, b))
        rows.append({"output": name, "cosine": cosine, "max_abs": float(np.abs(a - b).max())})
        passed = passed and bool(np.isfinite(b).all()) and cosine >= args.min_cosine
        print(f"{name}: cosine {cosine:.6f}, largest difference {rows[-1]['max_abs']:.3g}")
    print("PASS" if passed else f"FAIL: an output's cosine is below {args.min_cosine}")
    return {"passed": passed, "outputs": rows, "samples": len(next(iter(inputs.values())))}


def run_all(execution: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """Run all samples in batches that the engine takes; the last is padded by repeating its last sample."""
    import numpy as np  # noqa: PLC0415

    count = len(next(iter(inputs.values())))
    fixed = [shape[0] for _, shape in execution.inputs.values() if shape and shape[0] > 0]
    batch = execution.batch_range[1] if execution.batch_range else fixed[0] if fixed else count
    parts: dict[str, list[Any]] = {}
    for start in range(0, count, batch):
        take = [min(index, count - 1) for index in range(start, start + batch)]
        for name, array in execution.run({name: array[take] for name, array in inputs.items()}).items():
            parts.setdefault(name, []).append(array[: count - start])
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}
