"""What the deep learning accelerators of some Jetsons do not take: those layers run on the GPU instead.

The plan is ``backends.dla``'s, from NVIDIA's documentation. Nothing here was held against a DLA: no machine without one
can build for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from edgeopt.backends.base import Finding
from edgeopt.backends.dla import RULES as PLAN_RULES
from edgeopt.backends.dla import plan_dla
from edgeopt.backends.lint.base import Rule, by_id
from edgeopt.backends.lint.facts import Facts

if TYPE_CHECKING:
    from edgeopt.targets.schema import RuntimeRules, Target

__all__ = ["RULES", "check"]

_PAGE = "NVIDIA TensorRT documentation, DLA Supported Layers and Restrictions"
_GPU = "The layer runs on the GPU, and its tensors go there and back."
_ADVICE = {
    "DLA101": "Replace the operator, or leave the layers around it to the GPU.",
    "DLA102": "Keep to the range, or leave the layer to the GPU.",
    "DLA103": "Write it with four dimensions of fixed size, or leave the layer to the GPU.",
    "DLA104": "Compile with --recipe fp16.",
    "DLA105": "Replace the operators that break the graph apart, or leave it to the GPU.",
}
RULES: Mapping[str, Rule] = by_id(
    Rule(
        id="DLA003",
        effect="portable",
        title="a dynamic shape",
        why="A DLA takes fixed shapes only: a profile's smallest, best and largest must be equal.",
        fix="Export with a fixed batch, or set the same batch for all three.",
        source=f"{_PAGE}, General Restrictions",
    ),
    Rule(
        id="DLA005",
        effect="portable",
        title="explicit quantization (Q/DQ)",
        why="The DLA's int8 comes from calibrated ranges; Q/DQ nodes run on the GPU.",
        fix="Use fp16 on the DLA, or int8 on the GPU.",
        source="NVIDIA TensorRT documentation, Working with DLA (TensorRT 8 and 10)",
    ),
    Rule(
        id="DLA100",
        effect="portable",
        title="the plan: what would run on a DLA",
        why="TensorRT gives the DLA what it can take and the GPU the rest.",
        fix="options: {tensorrt: {dla: 0}} with --recipe fp16 compiles for it; the device's build has the last word.",
        source=_PAGE,
    ),
    *(
        Rule(id=name, effect="portable", title=title, why=_GPU, fix=_ADVICE[name], source=source)
        for name, (title, source) in PLAN_RULES.items()
    ),
)


def check(facts: Facts, target: Target | None, rules: RuntimeRules) -> Iterator[Finding]:  # noqa: ARG001
    """Only for targets that have a DLA: every node that would fall back, as if compiled in float16."""
    if not getattr(target, "dla_cores", 0):
        return
    for spec in facts.graph.inputs:
        if any(isinstance(dim, str) for dim in spec.shape):
            yield RULES["DLA003"].at(spec.name, f"The input {spec} is dynamic.")
    if quantized := next((node for node in facts.nodes if node.op_type.endswith("uantizeLinear")), None):
        yield RULES["DLA005"].at(quantized)
        return
    plan = plan_dla(facts.graph, 1, as_float16=True)
    if plan.nodes:
        share = f"{plan.on_dla} of {len(plan.nodes)} nodes on the DLA, in {plan.parts} loadables, the others on the GPU"
        yield RULES["DLA100"].at(None, f"By NVIDIA's published limits, in float16 and for a batch of 1: {share}.")
    for node in plan.on_gpu:
        yield RULES[node.rule].at(node.node, node.cause, node.fix)
    if plan.too_many_parts:
        yield RULES["DLA105"].at(None, f"The graph falls into {plan.parts} parts, and a core holds 16 at once.")
