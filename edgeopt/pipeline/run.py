"""One prepared run, and the graphs that a plan asks of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgeopt.data.contract import Dataset
from edgeopt.devices.base import Device
from edgeopt.pipeline.context import RunContext
from edgeopt.pipeline.float_stages import FloatStage, float_stages
from edgeopt.pipeline.graphs import Graph, Loaded, half_graph, quantized_graph
from edgeopt.pipeline.options import CompileOptions
from edgeopt.pipeline.plan import Plan
from edgeopt.pipeline.samples import ParityInputs
from edgeopt.recipes.schema import Convert
from edgeopt.targets.schema import is_quantized

__all__ = ["Run", "make_graphs"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything checked and read, and no work done yet.

    Attributes:
        loaded: The model as it came; see ``at``.
        started: When it began, seconds of ``time.monotonic``.
    """

    context: RunContext
    options: CompileOptions
    plan: Plan
    loaded: Loaded
    data: Dataset | None
    device: Device
    started: float

    def stages(self, plan: Plan, samples: ParityInputs) -> tuple[FloatStage, ...]:
        """The model as it came, and what each float step of the plan's recipe makes of it."""
        return float_stages(self.context, self.loaded, plan, samples, data=self.data)

    def at(self, stage: FloatStage) -> Run:
        """The same run on another float model."""
        return replace(self, loaded=stage.loaded)


def make_graphs(run: Run, plan: Plan, samples: ParityInputs, stages: Sequence[FloatStage]) -> dict[str, Graph]:
    """The portable graphs of the plan's candidates, by ``PlannedCandidate.graph``.

    Args:
        run: What was checked and read.
        plan: Its ``mixed`` step resolved.
        samples: That graphs are compared on.
        stages: The float models, of ``float_stages``; what quantizes or converts starts from the last.
    """
    last = stages[-1]
    graphs = {stage.loaded.name: stage.graph for stage in stages}
    made = last.graph
    if is_quantized(plan.precision) and run.data is not None:
        made = quantized_graph(run.context, last.loaded, plan, samples, data=run.data, base=made)
    if plan.recipe.step(Convert) is not None:
        made = half_graph(run.context, last.loaded, plan, samples, made, data=run.data)
    return graphs if plan.precision == "fp32" else graphs | {plan.precision: made}
