"""What stops a graph from becoming an ``.ort`` file for phones, beside what ONNX Runtime does on ARM anyway."""

# ruff: noqa: ARG001 (every file's check gets the same arguments)

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from edgeopt.backends.base import Finding
from edgeopt.backends.lint.base import Rule, by_id
from edgeopt.backends.lint.facts import Facts
from edgeopt.backends.lint.fusion import obstacle, quantized_through

if TYPE_CHECKING:
    from edgeopt.targets.schema import RuntimeRules, Target

__all__ = ["RULES", "check"]

_CONVERTER = "experiment: onnxruntime.tools.convert_onnx_models_to_ort of ONNX Runtime 1.32"
RULES: Mapping[str, Rule] = by_id(
    Rule(
        id="ORTM001",
        effect="refused",
        title="a float bias of a layer that has an int8 kernel",
        why="Saving runtime optimizations writes the bias as int32 without a zero point, and no .ort file.",
        fix="Store the bias as int32 with its zero point: the ort-arm dialect and `edgeopt lint --fix` do.",
        source=f"{_CONVERTER}: 'The sum of input arg count is not equal to size of input defs'",
    ),
    Rule(
        id="ORTM002",
        effect="refused",
        title="4-bit integers",
        why="The list of operators and types that a reduced build needs cannot name them.",
        fix="Use 8-bit weights on phones.",
        source=f"{_CONVERTER} with --enable_type_reduction: KeyError 22",
    ),
    Rule(
        id="ORTM003",
        effect="portable",
        title="a dynamic shape",
        why="NNAPI and Core ML take fixed shapes; a graph with others stays on the CPU.",
        fix="Fix the shape: python -m onnxruntime.tools.make_dynamic_shape_fixed.",
        source="ONNX Runtime documentation, Deploy on mobile, Make dynamic input shapes fixed",
    ),
)


def check(facts: Facts, target: Target | None, rules: RuntimeRules) -> Iterator[Finding]:
    """Biases, types, shapes."""
    for node in facts.weighted():
        fused = (
            node.op_type in ("Conv", "Gemm")
            and len(node.input) > 2
            and node.input[2] in facts.tensors
            and all(quantized_through(name, facts) for name in node.input[:2])
            and obstacle(node, facts, signed=True) is None
        )
        if fused:
            yield RULES["ORTM001"].at(node)
    for name, tensor in facts.tensors.items():
        if (facts.dtype(name) or "").endswith("int4") and tensor.dims:
            yield RULES["ORTM002"].at(name, f"{name!r} is stored as {facts.dtype(name)}.")
    for spec in facts.graph.inputs:
        if any(isinstance(dim, str) for dim in spec.shape):
            yield RULES["ORTM003"].at(spec.name, f"The input {spec} has no fixed shape.")
