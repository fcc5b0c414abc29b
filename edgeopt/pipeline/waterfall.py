"""What each stage of a recipe with float steps brought and cost."""

from __future__ import annotations

from collections.abc import Sequence

from edgeopt.bundle.document import WaterfallRow, WaterfallSection
from edgeopt.core.measurement import Measurement, not_measured
from edgeopt.pipeline.candidates import Judged
from edgeopt.pipeline.context import RunContext
from edgeopt.pipeline.float_stages import FloatStage
from edgeopt.pipeline.plan import Plan
from edgeopt.recipes.schema import step_name

__all__ = ["waterfall_of"]

_FIGURES = ("accuracy_top1_pct", "drop_pp", "agreement_pct", "latency_p50_ms", "latency_ratio", "size_mib")


def waterfall_of(
    context: RunContext, plan: Plan, stages: Sequence[FloatStage], judged: Judged, runtime: str
) -> WaterfallSection | None:
    """One row per float model, and one for what is made of the last; all on one runtime.

    Args:
        context: Whose machine the stages were made on.
        plan: Whose recipe they are of.
        stages: The original first.
        judged: All candidates.
        runtime: Whose figures are taken.

    Returns:
        None where there is no float model but the original.
    """
    if len(stages) < 2:
        return None
    by_stage = {stage.loaded.stage: stage for stage in stages}
    last = ", ".join(step_name(step) for step in plan.recipe.steps if step not in plan.recipe.float_steps)
    rows = []
    for candidate, built in zip(judged.candidates, judged.built, strict=True):
        if candidate.runtime != runtime:
            continue
        is_float = candidate.precision == "fp32"
        stage = by_stage[candidate.stage] if is_float else stages[-1]
        seconds = stage.seconds if is_float else built.graph.seconds
        rows.append(
            WaterfallRow(
                name="FP32" if candidate.role == "reference" else candidate.stage or candidate.precision,
                step=stage.step if is_float else last,
                candidate=candidate.id,
                figures=(
                    *(m for name in _FIGURES if (m := candidate.figure(name)) is not None),
                    *_counts(stage),
                    *([] if seconds is None else [_wall(seconds, context)]),
                ),
            )
        )
    return WaterfallSection(runtime=runtime, rows=tuple(rows))


def _counts(stage: FloatStage) -> tuple[Measurement, ...]:
    """Counted, not measured: they have no device. Quantization changes neither."""
    macs = (
        not_measured("macs", "MAC", "no layer's shapes are known")
        if stage.macs is None
        else Measurement(name="macs", value=stage.macs, unit="MAC")
    )
    return macs, Measurement(name="parameters", value=stage.loaded.model.parameters, unit="1")


def _wall(seconds: float, context: RunContext) -> Measurement:
    return Measurement(name="wall_s", value=seconds, unit="s", n=1, device=context.host)
