"""Weights with a fixed share of zeros in every small group, as data."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict

from edgeopt.core.sparsity import Pattern

__all__ = ["Sparsify"]


def _is_pattern(text: str) -> str:
    Pattern.read(text)
    return text


class Sparsify(BaseModel):
    """N:M sparsity: of every M consecutive input channels at most N have a weight, the largest ones.

    The zeros stay zero in whatever trains or quantizes afterwards.

    Attributes:
        pattern: ``N:M``, e.g. ``2:4``, the one that NVIDIA's sparse tensor cores take.
        skip: Shell patterns of layer names that stay dense.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pattern: Annotated[str, AfterValidator(_is_pattern)]
    skip: tuple[str, ...] = ()
