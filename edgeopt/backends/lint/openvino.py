"""What OpenVINO's CPU plug-in refuses, computes wrongly or runs in float."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from edgeopt.backends.base import Finding
from edgeopt.backends.lint.base import Rule, by_id
from edgeopt.backends.lint.facts import ONNX_DOMAINS, Facts, Grid
from edgeopt.backends.lint.generic import both_ways
from edgeopt.core.errors import BackendError

if TYPE_CHECKING:
    import onnx

    from edgeopt.targets.schema import RuntimeRules, Target

__all__ = ["MISSING_OPS", "RULES", "check"]

_PRECISION = "experiment: OpenVINO 2026.4.1 on x86-64, precisions of the compiled model"
_LPT = "OpenVINO documentation, OpenVINO Low Precision Transformations"
_READER = "experiment: OpenVINO 2026.4.1, 'No conversion rule found'"

RULES: Mapping[str, Rule] = by_id(
    Rule(
        id="OV001",
        effect="refused",
        title="an opset newer than the target's OpenVINO reads",
        why="The target's OpenVINO does not promise to read this opset.",
        fix="Export with --set export.opset, or update OpenVINO on the device.",
        source="OpenVINO documentation, Supported Operations, ONNX",
    ),
    Rule(
        id="OV002",
        effect="refused",
        title="an input that varies beyond its batch",
        why="edgeopt compiles OpenVINO engines for fixed sizes.",
        fix="Give the model fixed sizes: --input NAME:DTYPE[batch,3,224,224].",
        source="edgeopt's OpenVINO backend; OpenVINO documentation, Dynamic Shapes",
    ),
    Rule(
        id="OV003",
        effect="portable",
        title="a zero point that a convolution and a linear layer share",
        why="OpenVINO has run such linear layers in float.",
        fix="Give every weight its own zero point: `edgeopt lint --fix` does.",
        source="experiment: a quantized ViT on OpenVINO 2026.4.1, 9 of 17 linear layers in int8, 17 with their own; not "
        "reproduced on small nets",
    ),
    Rule(
        id="OV004",
        effect="wrong",
        title="int8 with a dynamic batch, and a constant that is expanded to it",
        why="Compiled with a dynamic shape, the result is silently wrong.",
        fix="Compile with a fixed shape, as edgeopt always does; or export a fixed batch.",
        source="experiment: a class token in front of an int8 layer, OpenVINO 2026.4.1, outputs off by 20 % of their "
        "reach with a dynamic batch, exact with a fixed one",
        level="warning",
    ),
    Rule(
        id="OV005",
        effect="refused",
        title="int8 on Armv8.0, without dot product",
        why="OpenVINO's int8 kernels need the dot product instructions, and raise without.",
        fix="Compile fp32 for this target, or use ONNX Runtime.",
        source="experiment: OpenVINO 2026.4.1 on an emulated Cortex-A53",
    ),
    Rule(
        id="OV006",
        effect="float",
        title="a weight whose zero point is not 0, or that is stored as uint8",
        why="int8 kernels take symmetric int8 weights only.",
        fix="Quantize the weight symmetrically.",
        source=f"{_LPT}; {_PRECISION}",
    ),
    Rule(
        id="OV007",
        effect="float",
        title="an activation with one scale per channel",
        why="int8 kernels take one scale for the input.",
        fix="Use one scale for the tensor.",
        source=f"{_LPT}; {_PRECISION}",
    ),
    Rule(
        id="OV008",
        effect="float",
        title="weights with scales along another axis than the output channels'",
        why="Scales of summed channels cannot be taken out of the sum.",
        fix="Quantize the weight per output channel.",
        source=f"{_LPT}; {_PRECISION}",
    ),
    Rule(
        id="OV009",
        effect="float",
        title="a ConvTranspose whose input has a zero point",
        why="Its int8 kernel takes inputs without zero point only.",
        fix="Quantize its input symmetrically, or leave it unquantized.",
        source=_PRECISION,
    ),
    Rule(
        id="OV010",
        effect="float",
        title="a product of two activations whose first has a zero point or whose second cannot be int8",
        why="Its int8 kernel takes the first input without zero point, and the second as int8.",
        fix="Quantize both symmetrically, or leave the product in float.",
        source=_PRECISION,
    ),
    Rule(
        id="OV011",
        effect="float",
        title="a convolution on integers of 16 bits",
        why="There is no kernel for them.",
        fix="Quantize to 8 bits.",
        source=f"{_LPT}; {_PRECISION}",
    ),
    Rule(
        id="OV012",
        effect="refused",
        title="an operator that OpenVINO does not read",
        why="OpenVINO's ONNX reader has no conversion for it.",
        fix="Replace it in the model.",
        source=_READER,
    ),
    Rule(
        id="OV013",
        effect="refused",
        title="an operator of a domain that OpenVINO does not read",
        why="OpenVINO's ONNX reader has no conversion for it.",
        fix="Export with ONNX's own operators.",
        source=_READER,
    ),
    Rule(
        id="OV014",
        effect="float",
        title="a convolution of which only the input or only the weight is quantized",
        why="Both must be quantized for an int8 kernel.",
        fix="Quantize both, or neither.",
        source=f"{_LPT}; {_PRECISION}",
    ),
    Rule(
        id="OV015",
        effect="refused",
        title="a form of an operator that OpenVINO does not have",
        why="OpenVINO has the operator, not this form of it.",
        fix="Write it with the forms that OpenVINO has.",
        source="experiment: OpenVINO 2026.4.1 refuses Pad with mode wrap and convolutions over four dimensions",
    ),
    Rule(
        id="OV016",
        effect="accuracy",
        title="a matrix product on integers of 16 bits",
        why="OpenVINO does not compute it as the graph says.",
        fix="Quantize to 8 bits.",
        source="experiment: OpenVINO 2026.4.1, an int8 kernel behind a 16-bit grid, outputs off by 1.3 % of their reach",
    ),
    Rule(
        id="OV017",
        effect="wrong",
        title="a square weight that one product reads as it is and another transposed",
        why="OpenVINO transposes the shared weight for both, without a word.",
        fix="Store the weight twice.",
        source="experiment: two Gemm on one weight of 16×16, one with transB, OpenVINO 2026.4.1: outputs off by 100 % of "
        "their reach in float, 38 % in int8; exact on ONNX Runtime 1.32, and with 16×24",
    ),
)
MISSING_OPS = frozenset(
    """
    Bernoulli ConcatFromSequence DeformConv Det ImageDecoder MaxUnpool MelWeightMatrix Optional OptionalGetElement
    OptionalHasElement RegexFullMatch SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength
    SequenceMap SplitToSequence StringConcat StringNormalizer StringSplit TensorScatter TfIdfVectorizer
    """.split()  # noqa: SIM905 (names read better as text)
)
"""ONNX's own operators, up to opset 24, that OpenVINO 2026.4.1 has no conversion for; a test holds the list to it."""
_DOMAINS = frozenset({*ONNX_DOMAINS, "ai.onnx.ml", "com.microsoft", "org.openvinotoolkit"})
_MOVES = frozenset({"Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "MaxPool", "Identity"})


def check(facts: Facts, target: Target | None, rules: RuntimeRules) -> Iterator[Finding]:
    """Opset and inputs, operators, then layer by layer."""
    yield from _whole(facts, target, rules)
    for node in facts.nodes:
        local = any(f.name == node.op_type and f.domain == node.domain for f in facts.graph.model.functions)
        if node.domain in ONNX_DOMAINS and node.op_type in MISSING_OPS:
            yield RULES["OV012"].at(node, f"OpenVINO does not read {node.op_type}.")
        elif node.domain not in _DOMAINS and not local:
            yield RULES["OV013"].at(node, f"OpenVINO does not read {node.domain}::{node.op_type}.")
        elif node.op_type == "Pad" and any(a.name == "mode" and a.s == b"wrap" for a in node.attribute):
            yield RULES["OV015"].at(node, "OpenVINO has no Pad with mode wrap.")
        elif node.op_type in ("Conv", "ConvTranspose") and len(facts.shape(node.input[1]) or ()) > 5:
            yield RULES["OV015"].at(node, "OpenVINO convolves over up to three dimensions.")
    for node in facts.weighted():
        yield from _layer(node, facts)
    yield from _shared(facts)
    for node, name in both_ways(facts, quantized=False):
        shape = facts.shape(name) or ()
        if len(shape) == 2 and shape[0] == shape[1]:
            yield RULES["OV017"].at(node, f"{name!r} is read as it is and transposed.")


def _whole(facts: Facts, target: Target | None, rules: RuntimeRules) -> Iterator[Finding]:
    opset = facts.graph.opset
    if opset > rules.opset_max:
        message = f"The graph has opset {opset}; {rules.name} {rules.versions} reads up to {rules.opset_max}."
        yield RULES["OV001"].at(None, message)
    try:
        facts.graph.require_batch_only("OpenVINO")
    except BackendError as error:
        yield RULES["OV002"].at(None, f"{error.what} Received: {error.got}.")
    layers = facts.graph.quantized
    if layers and target is not None and target.isa.arch == "aarch64" and "asimddp" not in target.isa.requires:
        yield RULES["OV005"].at(layers[0], f"{len(layers)} layers are quantized, and the target may lack dot product.")
    expanded = next((n for n in facts.nodes if n.op_type == "Expand" and n.input[0] in facts.tensors), None)
    if layers and expanded is not None and facts.graph.dynamic_batch:
        yield RULES["OV004"].at(expanded)


def _layer(node: onnx.NodeProto, facts: Facts) -> Iterator[Finding]:
    data, weight = facts.dequantizer(node.input[0], _MOVES), facts.weight(node)
    if node.op_type == "Conv" and (data is None) != (weight is None):
        if weight is not None or node.input[1] in facts.tensors:
            which = "input" if weight is None else "weight"
            yield RULES["OV014"].at(node, f"Only its {which} is quantized: it runs in float.")
        return
    other = facts.dequantizer(node.input[1], _MOVES)
    if data is None or other is None:
        return
    left, right = facts.grid(data), facts.grid(other)
    if {left.dtype, right.dtype} & {"int16", "uint16"}:
        is_conv = node.op_type.startswith("Conv")
        yield RULES["OV011" if is_conv else "OV016"].at(node, "Its input or weight has 16 bits.")
    elif left.per_channel:
        yield RULES["OV007"].at(node, "Its input has one scale per channel: it runs in float.")
    elif weight is None:
        if left.zero_point != _middle(left) or right.zero_point != _middle(right, either=True):
            yield RULES["OV010"].at(node, "It multiplies two activations, one of which has a zero point: float.")
    elif not right.blocked:
        yield from _weight(node, left, right)


def _weight(node: onnx.NodeProto, left: Grid, right: Grid) -> Iterator[Finding]:
    if right.zero_point != 0 or right.dtype == "uint8":
        yield RULES["OV006"].at(node, f"Its weight is {right.dtype} with zero point {right.zero_point}: float.")
    elif node.op_type in ("Conv", "ConvTranspose") and _other_axis(node, right):
        yield RULES["OV008"].at(node, f"Its weight has one scale per slice of axis {right.axis}: it runs in float.")
    elif node.op_type == "ConvTranspose" and left.zero_point != 0:
        yield RULES["OV009"].at(node, f"Its input has zero point {left.zero_point}: it runs in float.")


def _middle(grid: Grid, *, either: bool = False) -> int | None:
    """The zero point that leaves a product of two activations in int8: 0, and for the second 128 where it is uint8."""
    return 128 if either and grid.dtype == "uint8" else 0


def _other_axis(node: onnx.NodeProto, grid: Grid) -> bool:
    return grid.per_channel and grid.axis % 4 != (0 if node.op_type == "Conv" else 1)


def _shared(facts: Facts) -> Iterator[Finding]:
    kinds: dict[str, dict[bool, onnx.NodeProto]] = {}
    for node in facts.weighted():
        weight = facts.weight(node)
        if weight is not None and len(weight.input) > 2:
            kinds.setdefault(weight.input[2], {}).setdefault(node.op_type in ("Conv", "ConvTranspose"), node)
    for name, found in kinds.items():
        if name and len(found) == 2:
            yield RULES["OV003"].at(found[False], f"It shares the zero point {name!r} with a convolution.")
