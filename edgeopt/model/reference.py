"""The outputs that everything downstream is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from edgeopt.core.errors import ModelError
from edgeopt.core.spec import TensorSpec
from edgeopt.model.batches import samples_that_fit
from edgeopt.model.export import sharing_batch
from edgeopt.model.signature import program_inputs, program_outputs

__all__ = ["reference_outputs"]

_modules: WeakKeyDictionary[ExportedProgram, Any] = WeakKeyDictionary()


def reference_outputs(program: ExportedProgram, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    """Run a program in torch, on the CPU.

    Args:
        program: In eval mode, its inputs plain tensors: as `load_model` makes it.
        inputs: One array per input, in order; those that share the batch have the same N rows. A program of a fixed
            batch is run several times, its last rows filled up by repeating one; they are cut off again. So is one with
            large values, that memory may be used again.

    Returns:
        One array per output, flattened in order; an output without the batch first comes from the first run.

    Raises:
        ModelError: Another number of arrays, or one of another dtype or shape than the program takes.
    """
    specs = program_inputs(program)
    sharing = sharing_batch(specs)
    _check(specs, sharing, inputs)
    if not sharing:
        return _run(program, inputs)
    rows, batch = len(inputs[sharing[0]]), specs[sharing[0]].batch
    size = batch if isinstance(batch, int) else min(rows, max(2, samples_that_fit(program.graph)))
    if rows == size:
        return _run(program, inputs)
    follows = [spec.batch == batch for spec in program_outputs(program)]
    runs = []
    for start in range(0, rows, size):
        part = [
            _filled(array[start : start + size], size) if at in sharing else array for at, array in enumerate(inputs)
        ]
        runs.append(_run(program, part))
    return tuple(
        np.concatenate(outputs)[:rows] if follow else outputs[0]
        for follow, outputs in zip(follows, zip(*runs, strict=True), strict=True)
    )


def _run(program: ExportedProgram, inputs: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    if program not in _modules:
        _modules[program] = program.module(check_guards=False)
    tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in inputs]
    with torch.inference_mode():
        outputs = pytree.tree_leaves(_modules[program](*tensors))
    return tuple(output.detach().cpu().numpy().copy() for output in outputs)


def _check(specs: Sequence[TensorSpec], sharing: Sequence[int], inputs: Sequence[np.ndarray]) -> None:
    wanted = ", ".join(map(str, specs))
    if len(inputs) != len(specs):
        raise ModelError(
            "The model has another number of inputs.", got=f"{len(inputs)} arrays", fix=f"It takes {wanted}."
        )
    for at, (spec, array) in enumerate(zip(specs, inputs, strict=True)):
        free = spec.with_batch("rows") if at in sharing else spec
        if not free.accepts(array) or (at in sharing and len(array) == 0):
            raise ModelError(
                f"An array does not fit the model's input {spec.name!r}.",
                got=f"{array.dtype}{list(array.shape)}",
                fix=f"It takes {wanted}.",
            )
    if len({len(inputs[at]) for at in sharing}) > 1:
        raise ModelError(
            "The inputs have different numbers of rows.", got=str([len(inputs[at]) for at in sharing]), fix=wanted
        )


def _filled(rows: np.ndarray, batch: int) -> np.ndarray:
    missing = batch - len(rows)
    return rows if missing == 0 else np.concatenate([rows, np.repeat(rows[-1:], missing, axis=0)])
