"""What the passes share: their result, and one way to run several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from edgeopt.core.errors import GraphError
from edgeopt.core.events import Event

__all__ = ["PassResult", "run_passes"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PassResult:
    """What a pass over a file did.

    Attributes:
        path: The file written.
        modified: Whether it differs from its source.
        events: What it had to leave as it was, and why.
    """

    path: Path
    modified: bool
    events: tuple[Event, ...] = ()


def run_passes(model: ir.Model, passes: Sequence[ir.passes.InPlacePass]) -> bool:
    """Run ``passes`` in order; ``model`` is changed in place.

    Returns:
        Whether any of them changed it.

    Raises:
        GraphError: A pass's precondition or postcondition does not hold; the message names the pass.
    """
    modified = False
    for step in passes:
        try:
            modified = step(model).modified or modified
        except GraphError:
            raise
        except (ir.passes.InvariantError, ir.passes.PassError) as error:
            reason = error.__cause__ or error
            if isinstance(reason, GraphError):
                raise reason from error
            raise GraphError(f"The pass {type(step).__name__} failed.", got=str(reason)) from error
    return modified
