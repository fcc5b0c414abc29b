"""One prepared run, and the graphs that a plan asks of it."""

from __future__ import annotations

from dataclasses import dataclass

from edgeopt.data.contract import Dataset
from edgeopt.devices.base import Device
from edgeopt.pipeline.context import RunContext
from edgeopt.pipeline.graphs import Graph, Loaded, float16_graph, float_graph, quantized_graph
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
        started: When it began, seconds of ``time.monotonic``.
    """

    context: RunContext
    options: CompileOptions
    plan: Plan
    loaded: Loaded
    data: Dataset | None
    device: Device
    started: float


def make_graphs(run: Run, plan: Plan, samples: ParityInputs) -> dict[str, Graph]:
    """The portable graph of each precision in the plan."""
    graphs = {"fp32": float_graph(run.context, run.loaded, plan, samples)}
    made = graphs["fp32"]
    if is_quantized(plan.precision) and run.data is not None:
        made = quantized_graph(run.context, run.loaded, plan, samples, data=run.data, base=made)
    if plan.recipe.step(Convert) is not None:
        made = float16_graph(run.context, run.loaded, plan, samples, made, data=run.data)
    return graphs | {plan.precision: made}
