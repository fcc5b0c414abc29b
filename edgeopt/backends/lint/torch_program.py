"""What holds for runtimes that compile torch programs: edgeopt writes them from the graph, so it must know every operator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from edgeopt.backends.base import Finding
from edgeopt.backends.lint.base import Rule, by_id
from edgeopt.backends.lint.facts import ONNX_DOMAINS, Facts, Grid
from edgeopt.backends.torch_program.table import unknown

if TYPE_CHECKING:
    import onnx

    from edgeopt.targets.schema import RuntimeRules, Target

__all__ = ["RULES", "check"]

_SEEN = "experiment: ExecuTorch 1.5 and LiteRT 2.3 on the lint's corpus"
_MOST_CONVOLVED = 3
RULES: Mapping[str, Rule] = by_id(
    Rule(
        id="TPR001",
        effect="refused",
        title="an opset that is newer than edgeopt's table of operators",
        why="Operators of a newer opset may compute something else.",
        fix="Export at an older opset.",
        source="edgeopt's own limit (the target's opset_max)",
    ),
    Rule(
        id="TPR002",
        effect="refused",
        title="an input that varies beyond its batch",
        why="The program is compiled for fixed sizes.",
        fix="Give the model fixed sizes: --input NAME:DTYPE[batch,3,224,224].",
        source="edgeopt's own limit: ExecuTorch and LiteRT plan memory for fixed sizes (their documentation)",
    ),
    Rule(
        id="TPR003",
        effect="refused",
        title="an operator that edgeopt cannot write as a torch program",
        why="The runtime compiles torch programs, and edgeopt has no torch form of the operator.",
        fix="Replace the operator, or use a target with ONNX Runtime.",
        source="edgeopt's own table of operators (backends/torch_program/table.py)",
    ),
    Rule(
        id="TPR004",
        effect="wrong",
        title="a quantized tensor that is not int8",
        why="ExecuTorch has no such kernels; LiteRT's converter makes a file that it cannot open, or that computes otherwise.",
        fix="Write it as int8: the zero point moves by 128, the points stay (edgeopt lint --fix, or dialect: xnnpack).",
        source=_SEEN,
    ),
    Rule(
        id="TPR005",
        effect="refused",
        title="an activation with one scale per channel",
        why="Activations have one scale and one zero point.",
        fix="Use one scale for the tensor.",
        source=f"LiteRT documentation, 8-bit quantization specification; {_SEEN}",
    ),
    Rule(
        id="TPR006",
        effect="refused",
        title="convolution weights with scales along another axis than the output channels'",
        why="Per-channel scales lie along the output channels.",
        fix="Quantize the weight per output channel.",
        source=f"LiteRT documentation, 8-bit quantization specification; {_SEEN}",
    ),
    Rule(
        id="TPR007",
        effect="refused",
        title="a form of an operator that torch has not",
        why="edgeopt writes the operator, and not in this form.",
        fix="Export the model without it, or use a target with ONNX Runtime.",
        source="edgeopt's own limit (backends/torch_program)",
    ),
    Rule(
        id="TPR008",
        effect="wrong",
        title="a weight whose zero point is not 0, or that is not int8",
        why="Weights are symmetric int8: ExecuTorch takes another zero point and computes without it, LiteRT refuses it.",
        fix="Quantize the weight symmetrically.",
        source=f"LiteRT documentation, 8-bit quantization specification; {_SEEN}",
    ),
)


def check(facts: Facts, target: Target | None, rules: RuntimeRules) -> Iterator[Finding]:  # noqa: ARG001
    """The opset, the inputs, then every node; an unknown operator once. torch is not imported."""
    if facts.graph.opset > rules.opset_max:
        known = f"it is known up to {rules.opset_max}."
        yield RULES["TPR001"].at(None, f"The graph has opset {facts.graph.opset}; for {rules.name} {known}")
    for spec in facts.graph.inputs:
        if any(isinstance(dim, str) for dim in spec.shape[1:]):
            yield RULES["TPR002"].at(spec.name, f"The input {spec} varies beyond its batch.")
    missing = set(unknown(_name(node.domain, node.op_type) for node in facts.nodes))
    for node in facts.nodes:
        if (name := _name(node.domain, node.op_type)) in missing:
            missing.remove(name)
            message = f"edgeopt cannot write {name} as a torch program, which {rules.name} compiles from."
            yield RULES["TPR003"].at(node, message)
        elif node.op_type == "QuantizeLinear" and node.input[0] not in facts.tensors:
            yield from _activation(node, facts)
        elif form := _form(node, facts):
            yield RULES["TPR007"].at(node, form)
    for node in facts.weighted():
        if (weight := facts.weight(node)) is not None:
            yield from _weight(node, facts.grid(weight))


def _activation(node: onnx.NodeProto, facts: Facts) -> Iterator[Finding]:
    grid = facts.grid(node)
    if grid.dtype not in ("int8", None):
        yield RULES["TPR004"].at(node, f"It is {grid.dtype}: {RULES['TPR004'].why}")
    if grid.per_channel:
        yield RULES["TPR005"].at(node)


def _weight(node: onnx.NodeProto, grid: Grid) -> Iterator[Finding]:
    if grid.zero_point != 0 or grid.dtype not in ("int8", "int4"):
        yield RULES["TPR008"].at(node, f"Its weight is {grid.dtype} with zero point {grid.zero_point}.")
    if node.op_type == "Conv" and grid.per_channel and grid.axis % 4 != 0:
        yield RULES["TPR006"].at(node, f"Its weight has one scale per slice of axis {grid.axis}, not of 0.")


def _form(node: onnx.NodeProto, facts: Facts) -> str:
    """What torch has not, as a sentence; empty where it has it all."""
    if node.op_type in ("Conv", "ConvTranspose") and len(node.input) > 1:
        dims = len(facts.shape(node.input[1]) or facts.shapes.get(node.input[1], ())) - 2
        return (
            f"It convolves over {dims} dimensions; torch does up to {_MOST_CONVOLVED}."
            if dims > _MOST_CONVOLVED
            else ""
        )
    if node.op_type == "MaxPool" and len(node.output) > 1:
        return "It gives the places of its maxima too."
    mode = next((each.s.decode(errors="replace") for each in node.attribute if each.name == "mode"), "")
    return "It pads with wrap." if node.op_type == "Pad" and mode == "wrap" else ""


def _name(domain: str, op: str) -> str:
    return op if domain in ONNX_DOMAINS else f"{domain}.{op}"
