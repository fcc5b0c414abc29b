"""A plan for a DLA as findings and events: what falls back to the GPU and why, and that it is only a plan."""

from __future__ import annotations

from edgeopt.backends.base import Finding
from edgeopt.backends.dla import DlaPlan
from edgeopt.core.events import Event

__all__ = ["dla_events", "dla_findings"]


def dla_findings(plan: DlaPlan | None) -> list[Finding]:
    """One warning per node that falls back, and one where a core cannot hold all parts at once."""
    if plan is None:
        return []
    found = [
        Finding(severity="warning", rule=one.rule, node=one.node, message=one.cause, fix=one.fix) for one in plan.on_gpu
    ]
    if plan.too_many_parts:
        message = f"The graph falls into {plan.parts} parts for the DLA, and a core holds 16 at once."
        found.append(Finding(severity="warning", rule="DLA105", node=None, message=message))
    return found


def dla_events(plan: DlaPlan | None, core: int | None, *, asked: bool) -> tuple[Event, ...]:
    """What the plan is, and that it is only one; which nodes fall back, ``check`` has said."""
    if plan is None:
        message = "The DLA computes in float16: this float32 engine is for the GPU."
        return (Event(kind="note", stage="compile", message=message),) if asked else ()
    message = (
        f"Planned for DLA core {core}, by NVIDIA's published limits; not run: {plan.on_dla} of {len(plan.nodes)} nodes "
        f"there, in {plan.parts} loadables, {len(plan.on_gpu)} on the GPU. layers.json of the device's build tells."
    )
    return (Event(kind="note", stage="compile", message=message),)
