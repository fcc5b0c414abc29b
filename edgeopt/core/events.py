"""Things that happened on the way which a reader of the report must know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

__all__ = ["Event", "EventKind", "Progress", "ProgressListener", "ignore_progress"]

EventKind = Literal["note", "warning", "fallback"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A note, a warning, or a fall-back (a node that left int8, a provider that was not there).

    Attributes:
        kind: How much it matters.
        stage: The stage it happened in, e.g. ``quantize``.
        message: One sentence.
        node: The graph node concerned.
    """

    kind: EventKind
    stage: str
    message: str
    node: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a stage is: ``done`` of ``total`` units; ``total`` None when it is not known.

    ``part``: what is being done inside the stage; the stage itself goes on when a part is done.
    """

    stage: str
    done: int
    total: int | None
    part: str = ""


ProgressListener = Callable[[Progress], None]


def ignore_progress(progress: Progress) -> None:
    """The listener of a caller that does not care."""
