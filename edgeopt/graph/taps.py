"""Look at the values inside an ONNX graph by making them outputs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from edgeopt.core.errors import GraphError
from edgeopt.graph.io import load_onnx, save_onnx

__all__ = ["RunOnnx", "float_values", "samples_at_a_time", "tap", "tapped"]

RunOnnx = Callable[[Path, Mapping[str, np.ndarray]], dict[str, np.ndarray]]


def float_values(model: ir.Model) -> list[ir.Value]:
    """Every float32 value that a node of the main graph makes, in topological order; types are inferred first."""
    ShapeInferencePass(check_type=False, strict_mode=False)(model)
    return [value for node in model.graph for value in node.outputs if value.name and value.dtype == ir.DataType.FLOAT]


def tap(path: Path, names: Iterable[str], inputs: Mapping[str, np.ndarray], run: RunOnnx) -> dict[str, np.ndarray]:
    """Run the graph and return the values of these names besides its outputs.

    Raises:
        GraphError: A name is no value of the graph.
    """
    with tapped(path, names) as file:
        return run(file, inputs)


@contextmanager
def tapped(source: Path | ir.Model, names: Iterable[str]) -> Iterator[Path]:
    """The graph with the values of these names as outputs besides its own, as a file for as long as it is wanted.

    Args:
        source: A file; or a model, which is changed.
        names: Of float32 values.

    Raises:
        GraphError: A name is no value of the graph.
    """
    model = load_onnx(source) if isinstance(source, Path) else source
    outputs = {value.name for value in model.graph.outputs}
    wanted = [name for name in names if name not in outputs]
    made = {value.name: value for node in model.graph for value in node.outputs}
    if any(name in made and made[name].dtype is None for name in wanted):
        float_values(model)
    for name in wanted:
        if name not in made or made[name].dtype != ir.DataType.FLOAT:
            raise GraphError("The graph has no float32 value of that name.", got=name)
        model.graph.outputs.append(made[name])
    with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
        file = Path(folder) / "tapped.onnx"
        save_onnx(model, file)
        yield file


def samples_at_a_time(model: ir.Model, most: int) -> int:
    """How many samples the graph takes at once: its fixed batch, or ``most`` where that is open."""
    shape = model.graph.inputs[0].shape if model.graph.inputs else None
    first = shape[0] if shape is not None and len(shape) else None
    return first if isinstance(first, int) else most
