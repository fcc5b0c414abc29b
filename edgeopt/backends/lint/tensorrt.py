"""What TensorRT refuses, misreads or runs in float, found in the graph itself: no TensorRT, no GPU.

The rules were found by giving such graphs to the parser and builder of TensorRT-RTX 1.7.1 on a CPU, and agree with
TensorRT's documentation on explicit quantization ("Working with Quantized Types").
"""

# ruff: noqa: ARG001 (every file's check gets the same arguments)

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from edgeopt.backends.base import Finding
from edgeopt.backends.lint.base import Rule, by_id
from edgeopt.backends.lint.facts import ONNX_DOMAINS, Facts, attribute
from edgeopt.core.errors import BackendError

if TYPE_CHECKING:
    import onnx

    from edgeopt.targets.schema import RuntimeRules, Target

__all__ = ["MISSING_OPS", "RULES", "check"]

_TYPES = "NVIDIA TensorRT documentation, Working with Quantized Types"
_PARSER = "experiment: the ONNX parser of TensorRT-RTX 1.7.1"
_LAYERS = "experiment: TensorRT-RTX 1.7.1, kernels of the built engine"
_OPERATORS = "onnx-tensorrt, Supported ONNX Operators"

RULES: Mapping[str, Rule] = by_id(
    Rule(
        id="TRT001",
        effect="wrong",
        title="uint8 quantization: TensorRT reads it as int8, wrong above 127",
        why="uint8 is read as int8 without a word, wrong above 127.",
        fix="Write it as int8 with zero point 0.",
        source=f"{_TYPES}; {_PARSER}, which takes zero point 0 and reads the bytes as int8",
    ),
    Rule(
        id="TRT002",
        effect="refused",
        title="a zero point that is not 0: only symmetric int8 is taken",
        why="Only symmetric int8, zero point 0, is taken.",
        fix="Quantize symmetrically, or compile with edgeopt, which writes that form.",
        source=f"{_TYPES}; {_PARSER}: shiftIsAllZeros",
    ),
    Rule(
        id="TRT003",
        effect="refused",
        title="a scale that is not above 0",
        why="Every scale must be above 0.",
        fix="Calibrate again; a tensor that was always 0 gets any scale above 0.",
        source=f"{_PARSER}: scaleAllPositive",
    ),
    Rule(
        id="TRT004",
        effect="refused",
        title="an int32 bias behind DequantizeLinear: the bias must be float",
        why="A bias must stay float: TensorRT quantizes it itself.",
        fix="Store the bias as float.",
        source=f"{_TYPES}; {_PARSER}",
    ),
    Rule(
        id="TRT005",
        effect="float",
        title="an activation quantized per channel: it runs in float",
        why="An activation with one scale per channel runs in float.",
        fix="Use one scale for the tensor.",
        source=f"{_TYPES}; {_LAYERS}",
    ),
    Rule(
        id="TRT006",
        effect="float",
        title="convolution weights quantized along another axis than 0: it runs in float",
        why="int8 needs a convolution's scales along axis 0, the output channels.",
        fix="Quantize the weight per output channel.",
        source=f"{_TYPES}; {_LAYERS}",
    ),
    Rule(
        id="TRT007",
        effect="float",
        title="a ConvTranspose with Q/DQ: it runs in float",
        why="TensorRT runs ConvTranspose in float.",
        fix="Leave it unquantized.",
        source=_LAYERS,
    ),
    Rule(
        id="TRT008",
        effect="refused",
        title="an operator on integers (QLinear…, …Integer): only QuantizeLinear/DequantizeLinear are taken",
        why="Operators on integers are not taken.",
        fix="Write it as float between Q/DQ.",
        source=f"{_TYPES}; {_PARSER}",
    ),
    Rule(
        id="TRT009",
        effect="refused",
        title="an operator of another domain: it would need a plug-in",
        why="TensorRT needs a plug-in for it.",
        fix="Export with ONNX's own operators, or bring the plug-in.",
        source=f"NVIDIA TensorRT documentation, Extending TensorRT With Custom Layers; {_PARSER}",
    ),
    Rule(
        id="TRT010",
        effect="refused",
        title="an opset newer than the target's parser reads",
        why="The target's parser does not promise to read this opset.",
        fix="Export with --set export.opset or another target.",
        source=f"{_OPERATORS}, release/10.3: opsets 9 to 20",
    ),
    Rule(
        id="TRT011",
        effect="refused",
        title="a quantized type other than int8",
        why="It is not taken.",
        fix="Write it as int8.",
        source=f"{_TYPES}; {_PARSER}",
    ),
    Rule(
        id="TRT012",
        effect="refused",
        title="an operator that TensorRT does not have",
        why="TensorRT does not have this operator.",
        fix="Replace it in the model.",
        source=f"{_OPERATORS}; {_PARSER}, supports_operator",
    ),
    Rule(
        id="TRT013",
        effect="float",
        title="only one of a layer's input and weight is quantized: it runs in float",
        why="Its input is quantized and its weight is not: it runs in float.",
        fix="Quantize both, or neither.",
        source=f"{_TYPES}; {_LAYERS}",
    ),
    Rule(
        id="TRT014",
        effect="refused",
        title="an input that varies beyond its batch",
        why="edgeopt builds TensorRT engines for fixed sizes.",
        fix="Give the model fixed sizes: --input NAME:DTYPE[batch,3,224,224].",
        source="NVIDIA TensorRT documentation, Working with Dynamic Shapes",
    ),
    Rule(
        id="TRT015",
        effect="refused",
        title="a MaxPool that returns indices",
        why="TensorRT's MaxPool has one output.",
        fix="Replace the unpooling that needs the indices.",
        source=f"{_OPERATORS}, MaxPool; {_PARSER}",
    ),
    Rule(
        id="TRT016",
        effect="portable",
        title="an operator of another domain with the name of one of ONNX's own",
        why="TensorRT reads it as ONNX's own operator of that name, whatever its domain means by it.",
        fix="Export with ONNX's own operators.",
        source=f"{_PARSER}: com.microsoft::Gelu",
        level="warning",
    ),
    Rule(
        id="TRT018",
        effect="refused",
        title="a form of an operator that TensorRT does not have",
        why="TensorRT has the operator, not this form of it.",
        fix="Write it with the forms that TensorRT has.",
        source=f"{_OPERATORS}, restrictions; {_PARSER}",
    ),
    Rule(
        id="TRT019",
        effect="refused",
        title="NonZero",
        why="Its output's size depends on the data; TensorRT-RTX has it as a plug-in only, and does not bring that.",
        fix="Replace it with Where or a mask of fixed size.",
        source="experiment: TensorRT-RTX 1.7.1 refuses it; NVIDIA TensorRT 10 has a layer of its own",
        level="warning",
    ),
    Rule(
        id="TRT017",
        effect="portable",
        title="an opset older than the parser's documentation names",
        why="The parser's documentation begins at opset 9.",
        fix="Export at a newer opset.",
        source=f"{_OPERATORS}, release/10.3: opsets 9 to 20",
    ),
)
"""Rule id → what it finds."""

_OLDEST_OPSET = 9
_INTEGER_OPS = frozenset({"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"})
MISSING_OPS = frozenset(
    """
    AffineGrid Bernoulli BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor CenterCropPad Col2Im Compress
    ConcatFromSequence CumProd DFT DeformConv Det ImageDecoder MaxRoiPool MaxUnpool MelWeightMatrix Multinomial
    NegativeLogLikelihoodLoss Optional OptionalGetElement OptionalHasElement RegexFullMatch SequenceAt
    SequenceConstruct SequenceEmpty SequenceErase SequenceInsert SequenceLength SequenceMap SoftmaxCrossEntropyLoss
    SplitToSequence StringConcat StringNormalizer StringSplit SwiGLU TfIdfVectorizer Unique
    """.split()  # noqa: SIM905 (names read better as text)
)
"""ONNX's own operators that the parser of TensorRT-RTX 1.7.1 does not have; a test holds the list to the parser."""


def check(facts: Facts, target: Target | None, rules: RuntimeRules) -> Iterator[Finding]:
    """Opset and inputs, then node by node."""
    yield from _whole(facts, rules)
    for node in facts.nodes:
        yield from _operator(node)
        yield from _forms(node, facts)
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            yield from _quantizer(node, facts)
    for node in facts.weighted():
        yield from _weighted(node, facts)


def _whole(facts: Facts, rules: RuntimeRules) -> Iterator[Finding]:
    opset = facts.graph.opset
    if opset > rules.opset_max:
        message = f"The graph has opset {opset}; the target's parser reads up to {rules.opset_max}."
        yield RULES["TRT010"].at(None, message)
    if 0 < opset < _OLDEST_OPSET:
        yield RULES["TRT017"].at(None, f"The graph has opset {opset}; the parser's documentation begins at 9.")
    try:
        facts.graph.require_batch_only("TensorRT")
    except BackendError as error:
        yield RULES["TRT014"].at(None, f"{error.what} Received: {error.got}.")


def _operator(node: onnx.NodeProto) -> Iterator[Finding]:
    if node.domain not in ONNX_DOMAINS:
        name = f"{node.domain}::{node.op_type}"
        if _is_onnx_name(node.op_type):
            yield RULES["TRT016"].at(node, f"{name} is read as ONNX's own {node.op_type}.")
        else:
            yield RULES["TRT009"].at(node, f"{name} is not ONNX's own: TensorRT needs a plug-in for it.")
    elif node.op_type in _INTEGER_OPS:
        yield RULES["TRT008"].at(node, f"{node.op_type} is not taken.")
    elif node.op_type in MISSING_OPS:
        yield RULES["TRT012"].at(node, f"TensorRT has no {node.op_type}.")
    elif node.op_type == "MaxPool" and len(node.output) > 1 and node.output[1]:
        yield RULES["TRT015"].at(node)
    elif node.op_type == "NonZero":
        yield RULES["TRT019"].at(node)


def _forms(node: onnx.NodeProto, facts: Facts) -> Iterator[Finding]:
    ints = {a.name: tuple(a.ints) for a in node.attribute if a.ints}
    if node.op_type in ("MaxPool", "AveragePool") and any(step != 1 for step in ints.get("dilations", ())):
        yield RULES["TRT018"].at(node, f"TensorRT has no {node.op_type} with dilations {list(ints['dilations'])}.")
    if node.op_type == "LpPool" and attribute(node, "p", 2) not in (1, 2):
        yield RULES["TRT018"].at(node, f"TensorRT has LpPool of L1 and L2 only, not of {attribute(node, 'p', 2)}.")
    if node.op_type in ("Conv", "ConvTranspose") and len(facts.shape(node.input[1]) or ()) > 5:
        yield RULES["TRT018"].at(node, f"TensorRT convolves up to three dimensions, not {_spatial(node, facts)}.")


def _spatial(node: onnx.NodeProto, facts: Facts) -> int:
    return len(facts.shape(node.input[1]) or ()) - 2


def _is_onnx_name(kind: str) -> bool:
    import onnx  # noqa: PLC0415

    return onnx.defs.has(kind) and kind not in MISSING_OPS | _INTEGER_OPS


def _quantizer(node: onnx.NodeProto, facts: Facts) -> Iterator[Finding]:
    grid = facts.grid(node)
    dtype, zero, scale = grid.dtype, grid.zero, grid.scale
    is_weight = node.input[0] in facts.tensors
    if dtype == "uint8":
        yield RULES["TRT001"].at(node)
    elif dtype == "int32":
        yield RULES["TRT004"].at(node)
    elif dtype is not None and dtype not in ("int8", "float8_e4m3fn", "int4"):
        yield RULES["TRT011"].at(node, f"{dtype} is not taken.")
    if zero is not None and grid.zero_point:
        yield RULES["TRT002"].at(
            node, f"The zero point is {grid.zero_point}: only symmetric int8, zero point 0, is taken."
        )
    if scale is not None and not np.all(np.isfinite(scale) & (scale > 0)):
        yield RULES["TRT003"].at(node, f"The smallest scale is {scale.min()}: every scale must be above 0.")
    if grid.per_channel and not grid.blocked and not is_weight and not facts.is_weight(node):
        yield RULES["TRT005"].at(node)


def _weighted(node: onnx.NodeProto, facts: Facts) -> Iterator[Finding]:
    data, weight = facts.dequantizer(node.input[0]), facts.weight(node)
    if node.op_type == "ConvTranspose":
        if data is not None or weight is not None:
            yield RULES["TRT007"].at(node)
        return
    if data is not None and weight is None and node.input[1] in facts.tensors:
        yield RULES["TRT013"].at(node)
    if node.op_type != "Conv" or weight is None:
        return
    grid = facts.grid(weight)
    if data is None and not grid.blocked:
        yield RULES["TRT013"].at(node, "Its weight is quantized and its input is not: it runs in float.")
    if grid.per_channel and grid.axis % 4 != 0:
        message = f"Its weight has one scale per slice of axis {grid.axis}: int8 needs axis 0, the output channels."
        yield RULES["TRT006"].at(node, message)
