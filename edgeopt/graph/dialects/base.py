"""What a dialect is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import onnx_ir as ir

from edgeopt.core.events import Event

__all__ = ["Dialect", "DialectResult", "Rewrite"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite:
    """What a dialect did to a graph.

    Attributes:
        same_points: Every quantized tensor keeps exactly the values it could take; False where a grid became finer.
        events: What the runtime will leave in float, and why.
    """

    same_points: bool
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DialectResult:
    """A graph written in a dialect: ``path``, and what ``Rewrite`` says of it."""

    path: Path
    same_points: bool
    events: tuple[Event, ...] = ()


class Dialect(Protocol):
    """One runtime's way of writing a quantized graph. It never calibrates and never makes a grid coarser."""

    name: str

    def rewrite(self, model: ir.Model) -> Rewrite:
        """Change ``model`` in place.

        Raises:
            GraphError: The graph holds what this runtime rejects or misreads.
        """
        ...
