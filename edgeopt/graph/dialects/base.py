"""What a dialect is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import onnx_ir as ir

from edgeopt.core.events import Event

__all__ = ["ENOUGH_DB", "OBLIGATION_DB", "REPAIR_DB", "Dialect", "DialectResult", "Rewrite"]

OBLIGATION_DB = 0.5
"""What a graph that was put on other points may lose against FP32, as SQNR of the outputs below the neutral graph's.

Another grid is another rounding of the same tensors; on the 2,560 outputs of the test nets the level scatters by a few
tenths of a decibel where nothing is lost.
"""
ENOUGH_DB = 40.0
"""Where the outputs are this close to FP32, the rounding of one or two tensors decides the level, by luck: a seeded net
with PReLU has 45 dB in the neutral form and 43 in the finer ones, a trained one 25 and 33."""
REPAIR_DB = 6.0
"""What a graph may lose whose weights had to be repaired, as its runtime would else compute something else: the bit that
weights of 7 bits give up everywhere is 6 dB, and a repair must cost less. A faster form's coarser weights likewise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite:
    """What a dialect did to a graph.

    Attributes:
        same_points: Every quantized tensor keeps exactly the values it could take; False where a grid became finer.
        repaired: Output channels whose weights were put on a coarser grid, as their sums would overflow on this runtime.
        coarser: Tensors that were put on a coarser grid because the runtime has no finer one, or is faster on it.
        events: What the runtime will leave in float, and why.
    """

    same_points: bool
    repaired: int = 0
    coarser: int = 0
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DialectResult:
    """A graph written in a dialect: ``path``, and what ``Rewrite`` says of it."""

    path: Path
    same_points: bool
    repaired: int = 0
    coarser: int = 0
    events: tuple[Event, ...] = ()


class Dialect(Protocol):
    """One runtime's way of writing a quantized graph.

    It never calibrates. A runtime's own dialect never makes a grid coarser that the runtime has and multiplies on without
    overflow; a faster form may, and a compile takes that only where the outputs stay close to FP32.

    Its proof obligation, on ONNX Runtime without optimizations, which computes what a graph says (what is bfloat16 as float32, each
    value rounded), for any input:

    - where ``Rewrite.same_points``: 0 outputs differ from the neutral graph's;
    - else (a finer grid, a bias in int32, a rounding left out, float in bfloat16): the outputs are as close to FP32 as the neutral graph's,
      their SQNR at most ``OBLIGATION_DB`` lower, or at least ``ENOUGH_DB``;
    - where channels were ``repaired``, or tensors made ``coarser``: at most ``REPAIR_DB`` lower.

    tests/graph/test_graph_obligations.py holds every registered dialect to it, over every kind of net.
    """

    name: str

    def rewrite(self, model: ir.Model) -> Rewrite:
        """Change ``model`` in place.

        Raises:
            GraphError: The graph holds what this runtime rejects or misreads.
        """
        ...
