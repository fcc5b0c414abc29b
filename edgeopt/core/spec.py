"""What a model's input or output looks like: name, dtype, shape."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from edgeopt.core.errors import ModelError

__all__ = ["DTYPES", "Dim", "TensorSpec", "parse_input"]

Dim = int | str

DTYPES = ("float32", "float16", "float64", "int64", "int32", "int16", "int8", "uint8", "bool")
_INPUT = re.compile(r"(?P<name>[^:\s]+):(?P<dtype>\w+)\[(?P<shape>[^\]]*)\]")
_DIM_NAME = re.compile(r"[A-Za-z_]\w*")


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One input or output of a model.

    Attributes:
        name: The name the graph uses.
        dtype: NumPy's name of the element type, e.g. ``float32``.
        shape: One entry per dimension: a positive int, or a name for a dimension that may vary.
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...]

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ModelError(
                f"Tensor {self.name!r} has a dtype that edgeopt does not know.",
                got=self.dtype,
                fix=f"Use one of {', '.join(DTYPES)}.",
            )
        for dim in self.shape:
            if isinstance(dim, int) and dim < 1:
                raise ModelError(f"Tensor {self.name!r} has a dimension below 1.", got=list(self.shape))

    @property
    def batch(self) -> Dim | None:
        """The first dimension, or None for a scalar."""
        return self.shape[0] if self.shape else None

    @property
    def has_dynamic_batch(self) -> bool:
        """Whether the first dimension may vary."""
        return isinstance(self.batch, str)

    def with_batch(self, batch: Dim) -> TensorSpec:
        """The same spec with another first dimension."""
        return TensorSpec(name=self.name, dtype=self.dtype, shape=(batch, *self.shape[1:]))

    def accepts(self, array: np.ndarray) -> bool:
        """Whether ``array`` has this dtype, this rank and every fixed dimension."""
        return (
            array.dtype == np.dtype(self.dtype)
            and array.ndim == len(self.shape)
            and all(isinstance(d, str) or d == n for d, n in zip(self.shape, array.shape, strict=True))
        )

    def __str__(self) -> str:
        return f"{self.name}:{self.dtype}[{','.join(str(d) for d in self.shape)}]"


def parse_input(text: str) -> TensorSpec:
    """Read ``NAME:DTYPE[d0,d1,…]``; a dimension is a positive integer or a name.

    >>> parse_input("x:float32[batch,3,224,224]").shape
    ('batch', 3, 224, 224)

    Raises:
        ModelError: The text has another form, or an unknown dtype.
    """
    match = _INPUT.fullmatch(text.strip())
    example = "Write it as NAME:DTYPE[d0,d1,...], for example x:float32[batch,3,224,224]."
    if match is None:
        raise ModelError("The input specification cannot be read.", got=repr(text), fix=example)
    dims: list[Dim] = []
    for part in filter(None, (p.strip() for p in match["shape"].split(","))):
        if part.isdigit() and int(part) > 0:
            dims.append(int(part))
        elif _DIM_NAME.fullmatch(part):
            dims.append(part)
        else:
            raise ModelError("The input specification has a bad dimension.", got=repr(part), fix=example)
    return TensorSpec(name=match["name"], dtype=match["dtype"], shape=tuple(dims))
