"""What backends that compile torch programs share: the options that their runners need, and what is said of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgeopt.core.events import Event
from edgeopt.core.spec import TensorSpec

__all__ = ["batch_event", "runner_ports"]


def runner_ports(
    inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], dynamic_batch: Sequence[str], *, rows: bool
) -> dict[str, Any]:
    """The engine's options as ``agent/runners/fixed_batch.py`` reads them."""
    return {
        "inputs": [{"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)} for spec in inputs],
        "outputs": [{"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)} for spec in outputs],
        "dynamic_batch": list(dynamic_batch),
        "rows": rows,
    }


def batch_event(runtime: str, batch: int, dynamic_batch: Sequence[str]) -> tuple[Event, ...]:
    """Says that the batch was fixed, where it was not fixed before."""
    if not dynamic_batch:
        return ()
    message = f"{runtime}'s engine is compiled for a batch of {batch}; a larger one is run in parts, one after another."
    return (Event(kind="note", stage="compile", message=message),)
