"""What the user said about a model's inputs, against what the model says; and readable names for its dimensions."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence

import torch

from edgeopt.core.errors import ModelError
from edgeopt.core.spec import Dim, TensorSpec

__all__ = ["check_given", "name_dimensions", "order_like_forward"]

_SYMBOL = re.compile(r"\b[su]\d+\b")


def check_given(own: Sequence[TensorSpec], given: Sequence[TensorSpec]) -> None:
    """Refuse a specification that is not the model's; a fixed size where the model takes any is fine.

    Raises:
        ModelError: Another number of inputs, another name, dtype, rank or size. Both are shown.
    """
    if not given:
        return
    by_name = {spec.name: spec for spec in given}
    if len(given) == len(own) and all(s.name in by_name and _fits(s, by_name[s.name]) for s in own):
        return
    raise ModelError(
        "The input specification does not fit the model.",
        got=", ".join(map(str, given)),
        fix=f"The model itself says {', '.join(map(str, own))}; leave --input out, or give that.",
    )


def order_like_forward(module: torch.nn.Module, given: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """The given specs in the order of the forward's arguments where their names are its names; else as given.

    Raises:
        ModelError: There is none: such a model does not say what it takes.
    """
    try:
        names = list(inspect.signature(module.forward).parameters)
    except (TypeError, ValueError):
        names = []
    if not given:
        raise ModelError(
            "This form of a model does not say what its inputs look like.",
            got=f"a {type(module).__name__} with forward({', '.join(names)})",
            fix=f"Give --input once per input, for example --input '{names[0] if names else 'x'}:float32[batch,3,224,224]'.",
        )
    if len({spec.name for spec in given}) < len(given):
        raise ModelError("Two inputs have one name.", got=", ".join(map(str, given)), fix="Give each its own.")
    if all(spec.name in names for spec in given):
        ordered = tuple(sorted(given, key=lambda spec: names.index(spec.name)))
        if [spec.name for spec in ordered] == names[: len(ordered)]:
            return ordered
        missing = [name for name in names[: names.index(ordered[-1].name)] if name not in {s.name for s in given}]
        raise ModelError(
            "The input specification leaves out arguments of the model's forward.",
            got=", ".join(map(str, given)),
            fix=f"Give --input for {', '.join(missing)} too.",
        )
    return tuple(given)


def name_dimensions(
    inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], given: Sequence[TensorSpec] = (), batch: str = "batch"
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Give torch's symbols (``s77``) the names that people use, in inputs and outputs.

    The first input's first dimension is the batch; another one has the name the user gave it, or its input's name and
    its axis.
    """
    names: dict[str, str] = {}
    first = next((spec.batch for spec in inputs if spec.batch is not None), None)
    if isinstance(first, str) and _SYMBOL.fullmatch(first):
        names[first] = batch
    given_dims = {(spec.name, axis): dim for spec in given for axis, dim in enumerate(spec.shape)}
    for spec in inputs:
        for axis, dim in enumerate(spec.shape):
            for symbol in _SYMBOL.findall(dim) if isinstance(dim, str) else ():
                wanted = given_dims.get((spec.name, axis)) if symbol == dim else None
                names.setdefault(symbol, wanted if isinstance(wanted, str) else f"{spec.name}_{axis}")

    def renamed(dim: Dim) -> Dim:
        return dim if isinstance(dim, int) else _SYMBOL.sub(lambda match: names.get(match[0], match[0]), dim)

    def all_renamed(specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(name=spec.name, dtype=spec.dtype, shape=tuple(map(renamed, spec.shape))) for spec in specs
        )

    return all_renamed(inputs), all_renamed(outputs)


def _fits(own: TensorSpec, given: TensorSpec) -> bool:
    return (
        own.dtype == given.dtype
        and len(own.shape) == len(given.shape)
        and all(isinstance(o, str) or o == g for o, g in zip(own.shape, given.shape, strict=True))
    )
