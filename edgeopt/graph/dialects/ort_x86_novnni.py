"""ONNX Runtime on x86 without VNNI: as with it, on weights whose sums of products fit in 16 bits.

Before VNNI products of uint8 and int8 are summed in pairs in int16, and 255·127·2 saturates without a word. What the
weights and the inputs' ranges allow is proven, and the channels that could overflow are repaired, only they.
"""

from __future__ import annotations

import onnx_ir as ir

from edgeopt.core.events import Event
from edgeopt.graph.dialects.base import Rewrite
from edgeopt.graph.dialects.ort_x86 import OrtX86
from edgeopt.graph.passes.base import run_passes
from edgeopt.graph.passes.repair_saturation import RepairSaturation
from edgeopt.graph.saturation import SaturationReport, prove_model

__all__ = ["DIALECT", "OrtX86NoVnni"]


class OrtX86NoVnni:
    """The ``ort-x86`` dialect, its channels proven not to saturate, or repaired, or warned about."""

    name = "ort-x86-novnni"

    def rewrite(self, model: ir.Model) -> Rewrite:
        """Rewrite as ``ort-x86`` does, then repair on the graph that the runtime will read."""
        rewrite = OrtX86().rewrite(model)
        step = RepairSaturation()
        modified = run_passes(model, [step])
        return Rewrite(
            same_points=rewrite.same_points and not modified,
            repaired=sum(step.repaired.values()),
            events=(*rewrite.events, *_events(step, prove_model(model))),
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


DIALECT = OrtX86NoVnni()
