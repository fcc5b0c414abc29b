"""Quantized products that XNNPACK and LiteRT run in float: their int8 kernels read int8 and write int8.

``backends.torch_program.placement`` decides, for the linter as for the compiler.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from edgeopt.backends.base import Finding
from edgeopt.backends.executorch_delegates import HERE
from edgeopt.backends.lint.base import Rule, by_id
from edgeopt.backends.lint.facts import Facts
from edgeopt.backends.torch_program.graph import read_plan
from edgeopt.backends.torch_program.placement import FLOAT_INPUT, without_int8
from edgeopt.core.errors import BackendError

if TYPE_CHECKING:
    from edgeopt.targets.schema import RuntimeRules, Target

__all__ = ["RULES", "check"]

_SOURCE = "experiment: ExecuTorch 1.5 and LiteRT 2.3, coverage read back from the compiled files"
RULES: Mapping[str, Rule] = by_id(
    Rule(
        id="XNN001",
        effect="float",
        title="a quantized weight whose input is not quantized",
        why="An int8 kernel reads int8: the layer runs in float.",
        fix="Quantize its input.",
        source=_SOURCE,
    ),
    Rule(
        id="XNN002",
        effect="float",
        title="a quantized layer whose output is not quantized",
        why="The kernels write int8 only: the layer runs in float.",
        fix="Quantize its output (quantize_conv_outputs and quantize_linear_outputs in the target); a last layer stays.",
        source=_SOURCE,
    ),
)


def check(facts: Facts, target: Target | None, rules: RuntimeRules) -> Iterator[Finding]:  # noqa: ARG001
    """Every layer that the compiler will leave in float; other delegates are not XNNPACK's."""
    if rules.options.get("delegate", HERE) != HERE:
        return
    if not any(node.op_type == "DequantizeLinear" for node in facts.nodes):
        return  # a float graph's weights need not be read
    runtime = "LiteRT" if rules.name == "litert" else "XNNPACK"
    try:
        plan = read_plan(facts.graph.path, 1, runtime)
    except BackendError:
        return  # what cannot be compiled at all, another rule says
    for name, cause in without_int8(plan, runtime).items():
        yield RULES["XNN001" if cause == FLOAT_INPUT else "XNN002"].at(name)
