"""Names, dtypes and shapes of an exported program's inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from edgeopt.core.errors import ModelError
from edgeopt.core.spec import DTYPES, Dim, TensorSpec

__all__ = ["is_flat", "numpy_dtype", "program_inputs", "program_outputs", "torch_dtype"]


def program_inputs(program: ExportedProgram, names: Sequence[str] | None = None) -> tuple[TensorSpec, ...]:
    """One spec per tensor input, in the order of the program's forward.

    Args:
        program: Any exported program.
        names: What to call the inputs; by default as the program does.

    Raises:
        ModelError: An input is not a tensor, or of a dtype that edgeopt does not know.
    """
    placeholders = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    user = program.graph_signature.user_inputs
    if names is not None and len(names) != len(user):
        raise ModelError(
            "The model has another number of inputs.",
            got=f"{len(names)} ({', '.join(names)})",
            fix=f"It takes {len(user)}: {', '.join(map(str, user))}.",
        )
    specs = []
    for position, name in enumerate(user):
        value = placeholders[name].meta.get("val") if isinstance(name, str) and name in placeholders else name
        if not isinstance(value, torch.Tensor):
            raise ModelError(
                f"Input {position} ({name}) of the model is not a tensor.",
                got=type(value).__name__,
                fix="Wrap the model in a module whose forward takes tensors only, and export that.",
            )
        specs.append(_spec(names[position] if names else str(name), value))
    return tuple(specs)


def program_outputs(program: ExportedProgram) -> tuple[TensorSpec, ...]:
    """One spec per output, flattened in order.

    A dict's keys and a named tuple's fields give their names; the others are ``output``, ``output_1``, …

    Raises:
        ModelError: An output is not a tensor, or of a dtype that edgeopt does not know.
    """
    values = {node.name: node.meta.get("val") for node in program.graph.nodes}
    names = _output_names(program)
    specs = []
    for name, output in zip(names, program.graph_signature.user_outputs, strict=True):
        value = values.get(output) if isinstance(output, str) else output
        if not isinstance(value, torch.Tensor):
            raise ModelError(
                f"The model's output {name!r} is not a tensor.",
                got=f"{type(value).__name__} {value}",
                fix="Wrap the model in a module that returns its tensors only, and export that.",
            )
        specs.append(_spec(name, value))
    return tuple(specs)


def is_flat(program: ExportedProgram) -> bool:
    """Whether the program is called with its tensors alone, each one a positional argument."""
    spec = program.call_spec.in_spec
    if spec is None:
        return False
    positional, keyword = spec.children()
    return keyword.num_leaves == 0 and all(child.is_leaf() for child in positional.children())


def numpy_dtype(dtype: torch.dtype) -> str:
    """NumPy's name of a torch dtype, known to edgeopt or not."""
    return str(dtype).removeprefix("torch.")


def torch_dtype(name: str) -> torch.dtype:
    """The torch dtype of one of `DTYPES`."""
    dtype = getattr(torch, name)
    if not isinstance(dtype, torch.dtype):
        raise TypeError(name)
    return dtype


def _spec(name: str, value: torch.Tensor) -> TensorSpec:
    dtype = numpy_dtype(value.dtype)
    if dtype not in DTYPES:
        raise ModelError(
            f"Tensor {name!r} of the model has a dtype that edgeopt does not know.",
            got=dtype,
            fix=f"Convert it inside the model, e.g. with .float(). Known: {', '.join(DTYPES)}.",
        )
    return TensorSpec(name=name, dtype=dtype, shape=tuple(_dim(size) for size in value.shape))


def _dim(size: int | torch.SymInt) -> Dim:
    if isinstance(size, int):
        return size
    text = str(size.node.expr)
    return int(text) if text.isdigit() else text


def _output_names(program: ExportedProgram) -> list[str]:
    spec = program.call_spec.out_spec
    count = len(program.graph_signature.user_outputs)
    paths: list[tuple[Any, ...]] = [()] * count
    if spec is not None and spec.num_leaves == count:
        numbered = pytree.tree_unflatten(list(range(count)), spec)
        paths = [path for path, _ in pytree.tree_flatten_with_path(numbered)[0]]
    taken: set[str] = set()
    names = []
    for path in paths:
        words = [str(getattr(key, "key", getattr(key, "name", ""))) for key in path]
        stem = "_".join(filter(None, words)) or "output"
        name, number = stem, 0
        while name in taken:
            number += 1
            name = f"{stem}_{number}"
        taken.add(name)
        names.append(name)
    return names
