"""Which form of the quantization a runtime computes rightly: its own dialect first, then the target's further forms.

A dialect is proven on the graph. What the runtime's kernels make of it is not: OpenVINO's int8 with a dynamic batch and
an expanded constant lost 7.6 percentage points without a word. So an engine is held against what the portable graph
gave on another runtime; one that lost more than ``LOSS_DB`` is written in the next form.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgeopt.bundle.document import ParityRow
from edgeopt.core.events import Event
from edgeopt.pipeline.engines import Built

__all__ = ["LOSS_DB", "Attempt", "choose_form", "portable_db"]

LOSS_DB = 3.0
"""Twice the quantization noise. A finer grid only gains, and a kernel's own rounding costs a few tenths."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """An engine in one form.

    Attributes:
        sqnr_db: Its outputs against FP32's, on the parity samples; infinity where identical, None where it has none.
        failure: Why it has no outputs, or why they are outside the recipe's tolerance; empty where neither.
    """

    built: Built
    sqnr_db: float | None
    failure: str = ""


def choose_form(
    first: Attempt, forms: Sequence[str], portable: float | None, attempt: Callable[[str], Attempt]
) -> tuple[Attempt, tuple[Event, ...]]:
    """Try forms until one keeps the accuracy.

    Args:
        first: In the runtime's own dialect.
        forms: The further ones, in order.
        portable: SQNR of the portable graph on another runtime, same samples; None where it was not compared.
        attempt: Builds and runs one form.

    Returns:
        The first attempt that lost nothing, else the best of all; and one event per form that was given up.
    """
    best, current, events = first, first, []
    for form in forms:
        why = _why_not(current, portable)
        if not why:
            break
        planned = current.built.planned
        message = f"Written in the form {planned.dialect} {why}; the form {form} is tried."
        events.append(Event(kind="fallback", stage=f"compile {planned.id}", message=message))
        current = attempt(form)
        if _rank(current) > _rank(best):
            best = current
    if events:
        planned = best.built.planned
        message = f"The form {planned.dialect} is kept: {_level(best)} against FP32."
        events.append(Event(kind="note", stage=f"compile {planned.id}", message=message))
    built = dataclasses.replace(best.built, events=[*best.built.events, *events])
    return dataclasses.replace(best, built=built), tuple(events)


def portable_db(rows: Sequence[ParityRow]) -> float | None:
    """The SQNR of the portable int8 graph, as ``pipeline.graphs`` compared it; None where there is no such row."""
    for row in rows:
        if row.stage == "quantize (ONNX)":
            figure = next((f for f in row.figures if f.name == "sqnr_db"), None)
            return np.inf if figure is None or figure.value is None else figure.value
    return None


def _why_not(attempt: Attempt, portable: float | None) -> str:
    if attempt.failure:
        return f"it cannot be shipped ({attempt.failure})"
    if attempt.sqnr_db is None or portable is None or attempt.sqnr_db >= portable - LOSS_DB:
        return ""
    return f"it loses accuracy on its own runtime ({_level(attempt)}, the portable graph has {portable:.1f} dB)"


def _rank(attempt: Attempt) -> tuple[bool, float]:
    return not attempt.failure, -np.inf if attempt.sqnr_db is None else attempt.sqnr_db


def _level(attempt: Attempt) -> str:
    return "not run" if attempt.sqnr_db is None else f"{attempt.sqnr_db:.1f} dB"
