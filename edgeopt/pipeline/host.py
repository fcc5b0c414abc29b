"""Running an ONNX graph on the host, for parity: what the graph means, not how fast it is."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["run_onnx"]


def run_onnx(path: Path, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run a graph on samples in its own batch (all at once, where the batch is dynamic).

    ONNX Runtime with its graph optimizations off where it is installed, else ONNX's own reference evaluator. What is
    bfloat16 runs as float32, each value rounded (``RoundBfloat16``): neither has its kernels.

    Args:
        path: The ONNX file.
        inputs: One array [N, …] per graph input.

    Returns:
        One array [N, …] per graph output.
    """
    from edgeopt.graph.io import load_onnx
    from edgeopt.graph.taps import samples_at_a_time

    model = load_onnx(path)
    count = len(next(iter(inputs.values())))
    step = samples_at_a_time(model, 0) or count  # its first input's first dimension; all samples where that is dynamic
    parts: list[dict[str, np.ndarray]] = []
    with _readable(path, model) as file:
        run = _open(file)
    for start in range(0, count, step):
        rows = np.minimum(np.arange(start, start + step), count - 1)
        parts.append(run({name: array[rows] for name, array in inputs.items()}))
    if step == count:  # inner values that a caller taps, weights among them, need not have the samples first
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts])[:count] for name in parts[0]}


@contextmanager
def _readable(path: Path, model: ir.Model) -> Iterator[Path]:
    """The graph of ``path`` as a file that a CPU's kernels can run, for as long as it is opened."""
    from edgeopt.graph.passes.round_bfloat16 import has_bfloat16, write_rounded

    if not has_bfloat16(model):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
        yield write_rounded(model, Path(folder) / "rounded.onnx")


def _open(path: Path) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    if find_spec("onnxruntime") is not None:
        from edgeopt.agent.runners.onnxruntime import open_runner

        return open_runner(path, {"graph_optimization_level": "disable"}, None).infer
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(str(path))
    names = evaluator.output_names
    return lambda inputs: dict(zip(names, evaluator.run(None, dict(inputs)), strict=True))
