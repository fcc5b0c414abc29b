"""The first node at which two executions part."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeopt.graph.io import load_onnx
from edgeopt.graph.taps import RunOnnx, float_values, samples_at_a_time, tap

if TYPE_CHECKING:
    from torch.export import ExportedProgram

__all__ = ["RunOnnx", "first_difference", "first_difference_onnx"]

_SAMPLES = 4  # every inner value is held in memory; a wrong node is wrong on the first samples


def first_difference(
    program: ExportedProgram, path: Path, inputs: Mapping[str, np.ndarray], run: RunOnnx, tolerance: float
) -> str | None:
    """Name the first node whose ONNX value is not torch's value of the same node.

    Args:
        program: What ``path`` was exported from.
        inputs: One array per graph input; the first samples are used.
        run: Runs an ONNX file.
        tolerance: On |difference| relative to max(1, largest |value|).

    Returns:
        One sentence with the node, its module and the size of the difference; None where nothing differs.
    """
    from edgeopt.graph.export_values import torch_values  # noqa: PLC0415 - torch only where a stage has failed

    model = load_onnx(path)
    few = _few(inputs, samples_at_a_time(model, _SAMPLES))
    ordered = {value.name or "": value.producer() for value in float_values(model)}
    opset = model.opset_imports.get("", 18)
    outputs = [value.name or "" for value in model.graph.outputs]
    expected = torch_values(program, [few[v.name or ""] for v in model.graph.inputs], outputs, opset=opset)
    names = [name for name in ordered if name in expected]
    actual = tap(path, names, few, run)
    for name in names:
        reference, where = expected[name]
        gap = _gap(reference, actual[name], tolerance)
        if gap is not None:
            node = ordered[name]
            return f"{name} ({node.op_type if node else 'input'}{f' in {where}' if where else ''}): {gap}"
    return None


def first_difference_onnx(
    a: Path, b: Path, inputs: Mapping[str, np.ndarray], run: RunOnnx, tolerance: float
) -> str | None:
    """Name the first node of ``a`` whose float32 value differs in ``b`` from the value of the same name.

    Args:
        a: The reference, and ``b`` what was made of it.
        inputs: See ``first_difference``, as for ``run``, ``tolerance`` and what is returned.
    """
    first, second = load_onnx(a), load_onnx(b)
    few = _few(inputs, samples_at_a_time(first, _SAMPLES))
    ordered = {value.name or "": value.producer() for value in float_values(first)}
    there = {value.name for value in float_values(second)}
    names = [name for name in ordered if name in there]
    expected, actual = tap(a, names, few, run), tap(b, names, few, run)
    for name in names:
        gap = _gap(expected[name], actual[name], tolerance)
        if gap is not None:
            node = ordered[name]
            return f"{name} ({node.op_type if node else 'input'}): {gap}"
    return None


def _few(inputs: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    return {name: array[:count] if array.ndim else array for name, array in inputs.items()}


def _gap(reference: np.ndarray, value: np.ndarray, tolerance: float) -> str | None:
    if reference.shape != value.shape:
        return f"shape {value.shape} instead of {reference.shape}"
    if not reference.size:
        return None
    # infinities are legal inside a graph (attention masks): what counts is that both have them
    with np.errstate(invalid="ignore"):
        difference = np.where(reference == value, 0, np.abs(reference.astype(np.float64) - value))
    if bool((np.isnan(reference) & np.isnan(value)).all()):
        return None
    finite = np.abs(reference[np.isfinite(reference)])
    scale = max(1.0, float(finite.max())) if finite.size else 1.0
    worst = float(np.nan_to_num(difference, nan=np.inf).max())
    return None if worst <= tolerance * scale else f"largest difference {worst:.3g} where values reach {scale:.3g}"
