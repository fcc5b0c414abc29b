"""The clock of ``pruning.py``: portable graphs as engines of each runtime, all of a kind in turns beside the unpruned."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt.backends.registry import BACKENDS
from edgeopt.core.engine import Engine
from edgeopt.devices.registry import open_device
from edgeopt.graph.dialects import apply_dialect
from edgeopt.measure.latency import latency_ratio, measure_latency
from edgeopt.recipes.schema import Measure
from edgeopt.targets.load import find_target
from edgeopt.targets.schema import RuntimeRules

__all__ = ["BLOCK", "PRECISIONS", "RUNTIMES", "WHOLE", "time_graphs"]

RUNTIMES = ("onnxruntime", "openvino")
PRECISIONS = ("fp32", "int8")
WHOLE = "unpruned"
BLOCK = 20  # inferences per turn


def time_graphs(
    folders: Mapping[str, Path], sample: Mapping[str, np.ndarray], turns: int, scratch: Path
) -> dict[str, dict[str, Any]]:
    """Latency of every model, on every runtime, in both precisions.

    Args:
        folders: By name; each with ``fp32.onnx`` and ``int8.onnx``. ``WHOLE`` is one of the names.
        sample: One array per input name.
        turns: Of ``BLOCK`` inferences per engine.
        scratch: Where engines are built; emptied.

    Returns:
        ``"RUNTIME PRECISION"`` → name → ``p50_ms``, and ``ratio``, ``low``, ``high`` against the unpruned; or ``failed``.
    """
    found: dict[str, dict[str, Any]] = {}
    for runtime in RUNTIMES:
        rules = next(rules for rules in find_target("local").runtimes if rules.name == runtime)
        for precision in PRECISIONS:
            print(f"timing {len(folders)} engines: {runtime}, {precision}", file=sys.stderr, flush=True)
            shutil.rmtree(scratch, ignore_errors=True)
            engines = {
                name: build(folder / f"{precision}.onnx", rules, precision, scratch / str(number))
                for number, (name, folder) in enumerate(folders.items())
            }
            made = measure_latency(
                open_device("local"),
                engines,
                sample=sample,
                config=Measure(batch_sizes=(), threads=1, latency_samples=turns * BLOCK, block=BLOCK),
                batch=1,
                cold_starts=1,
            )
            found[f"{runtime} {precision}"] = {name: figures(one, made[WHOLE]) for name, one in made.items()}
    shutil.rmtree(scratch, ignore_errors=True)
    return found


def build(graph: Path, rules: RuntimeRules, precision: str, folder: Path) -> Engine:
    """An engine for batch 1, in the runtime's own dialect."""
    (folder / "engine").mkdir(parents=True)
    dialect = rules.dialect if precision == "int8" else "float"
    written = apply_dialect(dialect, graph, folder / "model.onnx").path
    return BACKENDS[rules.name].compile(written, find_target("local"), rules, folder / "engine", 1)


def figures(one: Any, whole: Any) -> dict[str, Any]:
    """What is kept of a measurement."""
    ratio = latency_ratio(one, whole)
    if ratio.value is None or ratio.interval is None:
        return {"failed": ratio.reason}
    p50 = one.figure("latency_p50_ms").value
    return {
        "p50_ms": p50,
        "ratio": ratio.value,
        "low": ratio.interval.low,
        "high": ratio.interval.high,
        "turns": len(one.blocks_ms),
        "n": ratio.n,
    }
