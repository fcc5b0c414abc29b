"""What the dialects for x86 without VNNI add: sums of two products that fit in 16 bits, proven, or repaired until they do."""

from __future__ import annotations

import onnx_ir as ir

from edgeopt.core.events import Event
from edgeopt.graph.dialects.base import Rewrite
from edgeopt.graph.integer_layers import Kernels
from edgeopt.graph.passes.base import run_passes
from edgeopt.graph.passes.repair_saturation import RepairSaturation
from edgeopt.graph.saturation import SaturationReport, prove_model

__all__ = ["without_overflow"]


def without_overflow(model: ir.Model, rewrite: Rewrite, kernels: Kernels) -> Rewrite:
    """Repair the channels of ``model`` that could overflow, and say what was proven.

    Args:
        model: As its runtime will read it; changed in place.
        rewrite: What the dialect has done to it.
        kernels: Of that runtime.
    """
    step = RepairSaturation(kernels)
    modified = run_passes(model, [step])
    return Rewrite(
        same_points=rewrite.same_points and not modified,
        repaired=sum(step.repaired.values()),
        events=(*rewrite.events, *_events(step, prove_model(model, kernels))),
    )


def _events(step: RepairSaturation, after: SaturationReport) -> list[Event]:
    """What was proven, and what could not be repaired."""
    if not after.layers:
        return []
    changed, total = sum(step.repaired.values()), after.channels
    could = changed + after.overflowing
    message = f"Without VNNI sums of two products could overflow in {could} of {total} output channels"
    if not could:
        message = f"Proven: without VNNI no sum of two products leaves 16 bits in any of {total} output channels"
    if changed:
        message += (
            f"; {changed} were given steps wider by at most {100 * (step.widest - 1):.0f} %"
            f" (their weights' SQNR {step.lost_db:.1f} dB)"
        )
    events = [Event(kind="note", stage="dialect", message=f"{message}.")]
    events += [
        Event(
            kind="warning",
            stage="dialect",
            message=f"{len(layer.witnesses)} of {layer.channels} channels may saturate without VNNI: inputs of"
            f" {layer.witnesses[0].value} on weights {layer.witnesses[0].weights[0]} and"
            f" {layer.witnesses[0].weights[1]} make {layer.witnesses[0].total}.",
            node=layer.node,
        )
        for layer in after.layers
        if not layer.is_safe
    ]
    return events
