"""What ExecuTorch's delegates leave to its portable kernels, and what edgeopt does not give them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from edgeopt.backends.base import Finding
from edgeopt.backends.executorch_delegates import HERE
from edgeopt.backends.lint.base import Rule, by_id
from edgeopt.backends.lint.facts import Facts

if TYPE_CHECKING:
    from edgeopt.targets.schema import RuntimeRules, Target

__all__ = ["RULES", "check"]

_CONVOLUTION_DIMS = 4
RULES: Mapping[str, Rule] = by_id(
    Rule(
        id="EXT001",
        effect="refused",
        title="a quantized graph for a delegate that is given float graphs only",
        why="What the Vulkan, Core ML and QNN delegates make of Q/DQ cannot be held against the graph without such a device.",
        fix="Use recipe fp32; int8 on phones: delegate xnnpack, or a Core ML or QNN target.",
        source="edgeopt's own limit (backends/executorch.py)",
    ),
    Rule(
        id="EXT002",
        effect="slow",
        title="a two-dimensional convolution over several samples on Vulkan",
        why="Vulkan takes 2-D convolutions of one sample; with more, ExecuTorch's portable kernels run it on the CPU.",
        fix="Compile for a batch of 1.",
        source="experiment: ExecuTorch 1.5, VulkanPartitioner on convolutions of one and of two samples",
    ),
)


def check(facts: Facts, target: Target | None, rules: RuntimeRules) -> Iterator[Finding]:  # noqa: ARG001
    """What the target's delegate does with the graph."""
    delegate = rules.options.get("delegate", HERE)
    if delegate == HERE:
        return
    if facts.graph.quantized:
        yield RULES["EXT001"].at(None, f"{len(facts.graph.quantized)} layers are quantized.")
    if delegate != "vulkan":
        return
    for node in facts.nodes:
        shape = facts.shapes.get(node.input[0], ()) if node.op_type in ("Conv", "ConvTranspose") else ()
        if len(shape) == _CONVOLUTION_DIMS and isinstance(shape[0], int) and shape[0] > 1:
            yield RULES["EXT002"].at(node, f"It runs over {shape[0]} samples: outside Vulkan, on the CPU.")
