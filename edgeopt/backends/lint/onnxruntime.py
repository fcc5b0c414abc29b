"""What ONNX Runtime's CPU kernels refuse, compute wrongly or run in float."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from edgeopt.backends.base import Finding
from edgeopt.backends.lint.base import Rule, by_id
from edgeopt.backends.lint.facts import ONNX_DOMAINS, Facts, Grid
from edgeopt.backends.lint.fusion import MOVES, obstacle, quantized_through

if TYPE_CHECKING:
    import onnx

    from edgeopt.targets.schema import RuntimeRules, Target

__all__ = ["BFLOAT16", "DOMAINS", "NO_FLOAT64", "RULES", "check"]

_KERNELS = "experiment: ONNX Runtime 1.32 on x86-64, kernels of the optimized graph"
_SELECTORS = "ONNX Runtime source, qdq_selectors.cc"
_QUANTIZE = "ONNX Runtime documentation, Quantize ONNX Models"

RULES: Mapping[str, Rule] = by_id(
    Rule(
        id="ORT001",
        effect="refused",
        title="an opset newer than the target's ONNX Runtime reads",
        why="The target's ONNX Runtime does not read this opset.",
        fix="Export with --set export.opset, or update ONNX Runtime on the device.",
        source="ONNX Runtime documentation, Compatibility, ONNX opset support",
    ),
    Rule(
        id="ORT002",
        effect="float",
        title="an int8 activation that stays int8 on x86",
        why="x86 runs int8 activations in float unless they can be made uint8, which one reader allows.",
        fix="Compile with edgeopt, whose ort-x86 dialect writes uint8; or give each reader its own Q/DQ.",
        source=f"{_SELECTORS}, ConvNodeGroupSelector (int8_allowed); {_KERNELS}",
    ),
    Rule(
        id="ORT003",
        effect="float",
        title="a quantized convolution without exactly one Q behind it; a matrix product with a Q and another reader",
        why="Only DQ, convolution and Q together become an int8 kernel.",
        fix="Quantize its output (the recipe's quantize_conv_outputs), once.",
        source=f"{_SELECTORS}, CheckQDQNodes; {_KERNELS}",
    ),
    Rule(
        id="ORT004",
        effect="float",
        title="a Relu or Clip between a layer and Q that Q's range does not make redundant",
        why="It cannot be folded into Q, so the layer in front of it stays in float.",
        fix="Put Q's zero point at its type's smallest value behind a Relu, and Q's range inside a Clip's bounds.",
        source=f"{_SELECTORS}, IsClipMadeRedundantByQ; {_KERNELS}",
    ),
    Rule(
        id="ORT005",
        effect="float",
        title="a Gemm weight without a zero point",
        why="Its weight is unpacked, and multiplied in float.",
        fix="Write the zero point out: `edgeopt lint --fix` does.",
        source=f"{_KERNELS}: four layers of 1024×1024, 19 times slower without",
    ),
    Rule(
        id="ORT006",
        effect="float",
        title="a layer that reads one integer type and writes another",
        why="Kernels have one type for input and output.",
        fix="Quantize input and output in the same type.",
        source=f"{_SELECTORS}; {_KERNELS}",
    ),
    Rule(
        id="ORT007",
        effect="float",
        title="an int32 bias that is not in units of the input's step times the weight's",
        why="The bias cannot be added to the integer sum.",
        fix="Store the bias on that step, or as float: `edgeopt lint --fix` does.",
        source=f"ONNX documentation, QLinearConv, B; {_KERNELS}",
    ),
    Rule(
        id="ORT008",
        effect="float",
        title="a convolution of which only the input or only the weight is quantized",
        why="Both must be quantized for an int8 kernel.",
        fix="Quantize both, or neither.",
        source=f"{_SELECTORS}; {_KERNELS}",
    ),
    Rule(
        id="ORT009",
        effect="float",
        title="16-bit integers or scales that are not float32",
        why="There is no integer kernel for them.",
        fix="Quantize to 8 bits with float32 scales.",
        source=f"{_SELECTORS}, Is16BitIntType; {_KERNELS}",
    ),
    Rule(
        id="ORT010",
        effect="float",
        title="a bias that is computed where the graph is run",
        why="Only a constant bias can be added to the integer sum.",
        fix="Fold the bias into a constant.",
        source=_KERNELS,
    ),
    Rule(
        id="ORT011",
        effect="float",
        title="a float bias of a matrix product that no Q follows",
        why="The weight is unpacked, and multiplied in float.",
        fix="Store the bias as int32 (the ort dialects do), or quantize the output.",
        source=f"{_KERNELS}: QGemm takes int32 only",
    ),
    Rule(
        id="ORT012",
        effect="float",
        title="a layer behind Flatten, Concat or their like, with its DequantizeLinear in front of them",
        why="ONNX Runtime moves DequantizeLinear past Reshape, Transpose, Squeeze, Unsqueeze and MaxPool only.",
        fix="Quantize right in front of the layer, or write Flatten as Reshape.",
        source=_KERNELS,
    ),
    Rule(
        id="ORT013",
        effect="refused",
        title="an activation with one scale per channel in front of a convolution that is fused",
        why="The fused kernel takes one zero point, and fails when it is run.",
        fix="Use one scale for the tensor.",
        source="ONNX documentation, QLinearConv, x_scale; experiment: ONNX Runtime 1.32, 'input zero point must be a "
        "scalar'",
    ),
    Rule(
        id="ORT014",
        effect="wrong",
        title="convolution weights with scales along another axis than 0",
        why="The kernel takes the scales for those of the output channels.",
        fix="Quantize the weight per output channel, axis 0.",
        source="experiment: ONNX Runtime 1.32, outputs off by 20 % of their reach, without a word",
    ),
    Rule(
        id="ORT015",
        effect="refused",
        title="an operator that has no kernel for float64 or bfloat16",
        why="The CPU provider has no kernel for this type.",
        fix="Export the model in float32.",
        source="ONNX Runtime documentation, Operator kernels, CPUExecutionProvider",
    ),
    Rule(
        id="ORT016",
        effect="float",
        title="a ConvTranspose with Q/DQ",
        why="The CPU provider has no quantized kernel for it.",
        fix="Leave it unquantized.",
        source=f"ONNX Runtime documentation, Operator kernels, CPUExecutionProvider; {_KERNELS}",
    ),
    Rule(
        id="ORT017",
        effect="refused",
        title="an operator of a domain that ONNX Runtime does not know",
        why="It needs a library of custom operators, which a bundle does not have.",
        fix="Export with ONNX's own operators.",
        source="ONNX Runtime documentation, Custom operators",
    ),
    Rule(
        id="ORT018",
        effect="portable",
        title="an input that varies beyond its batch",
        why="Memory is planned anew for every size, and OpenVINO and TensorRT take fixed sizes only.",
        fix="Give the model fixed sizes where the task has them.",
        source="ONNX Runtime documentation, Performance, Memory; edgeopt's backends",
    ),
    Rule(
        id="ORT019",
        effect="portable",
        title="8-bit weights on x86 without VNNI: pairs of products may saturate",
        why="uint8 times int8 is added in pairs of 16 bits, which saturate.",
        fix="Compile with edgeopt, which proves each channel safe or gives it a wider step; or use 7-bit weights.",
        source=f"Intel 64 and IA-32 Architectures Software Developer's Manual, PMADDUBSW; {_QUANTIZE}, When to use "
        "reduce-range; experiment: an emulated Haswell, 6 of 30 cases wrong",
        level="warning",
    ),
    Rule(
        id="ORT020",
        effect="wrong",
        title="int8 times int8 with weights of -128 on Armv8.0, without dot product",
        why="Two products of -128 overflow 16 bits, and every element of the result is wrong.",
        fix="Quantize weights to [-127, 127]: `edgeopt lint --fix` clamps where that changes nothing that counts.",
        source="onnxruntime#31573; experiment: ONNX Runtime 1.31.1 on an emulated Cortex-A53",
    ),
)

DOMAINS = frozenset({*ONNX_DOMAINS, "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc"})
NO_FLOAT64 = frozenset(
    """
    Acos Acosh Asin Asinh Atan Atanh Attention AveragePool Col2Im Conv ConvTranspose Cosh Det Elu Erf
    GlobalAveragePool GlobalLpPool GlobalMaxPool HardSigmoid Hardmax InstanceNormalization LRN LeakyRelu LpPool
    MaxRoiPool MaxUnpool Mean Multinomial NonZero PRelu RNN Resize Selu Sinh Softplus Softsign Tan ThresholdedRelu Upsample
    """.split()  # noqa: SIM905 (names read better as text)
)
"""ONNX's own operators with a float32 kernel and no float64 one on ONNX Runtime 1.32's CPU provider, and no function
body that would stand in; a test holds the list to the runtime's own."""
BFLOAT16 = frozenset(
    """
    BitCast Cast Celu Compress Concat Constant ConstantOfShape Einsum Flatten Gather GatherElements GatherND Identity If
    IsInf IsNaN LayerNormalization Loop OneHot Optional OptionalGetElement OptionalHasElement Pad RandomNormalLike
    RandomUniformLike Reshape ReverseSequence Scan Scatter ScatterElements ScatterND SequenceAt SequenceConstruct Shape
    Shrink Sign Slice Split Squeeze TensorScatter Transpose Unique Unsqueeze
    """.split()  # noqa: SIM905 (names read better as text)
)
"""ONNX's own operators with a bfloat16 kernel on ONNX Runtime 1.32's CPU provider; held to the runtime likewise."""
_SAFE = 64  # 255·64·2 fits into 16 bits


def check(facts: Facts, target: Target | None, rules: RuntimeRules) -> Iterator[Finding]:
    """Opset and inputs, operators and types, then layer by layer."""
    yield from _whole(facts, rules)
    double, brain = _of_rare_types(facts)
    for node in facts.nodes:
        if node.domain not in DOMAINS and not _is_local(node, facts):
            yield RULES["ORT017"].at(node, f"{node.domain}::{node.op_type} needs a library of custom operators.")
        elif node.domain in ONNX_DOMAINS and node.input:
            if node.op_type in NO_FLOAT64 and node.input[0] in double:
                yield RULES["ORT015"].at(node, f"{node.op_type} has no float64 kernel.")
            elif node.op_type not in BFLOAT16 and node.input[0] in brain:
                yield RULES["ORT015"].at(node, f"{node.op_type} has no bfloat16 kernel.")
    signed = target is not None and target.isa.arch == "aarch64"
    for node in facts.weighted():
        yield from _layer(node, facts, target, signed=signed)


def _whole(facts: Facts, rules: RuntimeRules) -> Iterator[Finding]:
    opset = facts.graph.opset
    if opset > rules.opset_max:
        message = f"The graph has opset {opset}; {rules.name} {rules.versions} reads up to {rules.opset_max}."
        yield RULES["ORT001"].at(None, message)
    for spec in facts.graph.inputs:
        if any(isinstance(dim, str) for dim in spec.shape[1:]):
            yield RULES["ORT018"].at(spec.name, f"The input {spec} varies beyond its batch.")


def _is_local(node: onnx.NodeProto, facts: Facts) -> bool:
    return any(f.name == node.op_type and f.domain == node.domain for f in facts.graph.model.functions)


def _of_rare_types(facts: Facts) -> tuple[set[str], set[str]]:
    """The tensors of type float64, and of bfloat16. Types are inferred only where something is of these at all."""
    import onnx  # noqa: PLC0415

    rare = (onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16)
    kinds = {tensor.data_type for tensor in facts.tensors.values()}
    kinds |= {a.i for n in facts.nodes if n.op_type == "Cast" for a in n.attribute if a.name == "to"}
    kinds |= {value.type.tensor_type.elem_type for value in facts.graph.model.graph.input}
    if not kinds & set(rare):
        return set(), set()
    inferred = onnx.shape_inference.infer_shapes(facts.graph.model).graph
    of = {value.name: value.type.tensor_type.elem_type for value in (*inferred.input, *inferred.value_info)}
    of |= {name: tensor.data_type for name, tensor in facts.tensors.items()}
    double, brain = ({name for name, kind in of.items() if kind == each} for each in rare)
    return double, brain


def _layer(node: onnx.NodeProto, facts: Facts, target: Target | None, *, signed: bool) -> Iterator[Finding]:
    data = quantized_through(node.input[0], facts)
    weight = facts.weight(node)
    if node.op_type == "ConvTranspose":
        if data and weight is not None:
            yield RULES["ORT016"].at(node)
        return
    if (
        node.op_type == "Conv"
        and data != (weight is not None)
        and (weight is not None or node.input[1] in facts.tensors)
    ):
        which = "input" if data else "weight"
        yield RULES["ORT008"].at(node, f"Only its {which} is quantized: it runs in float.")
        return
    if not data or (weight is None and not quantized_through(node.input[1], facts)):
        return
    found = obstacle(node, facts, signed=signed)
    if found is not None:
        yield RULES[found.rule].at(node, found.why)
        return
    yield from _fused(node, facts)
    if weight is not None:
        yield from _instruction_set(node, facts.grid(weight), facts, target)


def _fused(node: onnx.NodeProto, facts: Facts) -> Iterator[Finding]:
    """What a fused kernel takes for something else."""
    data, weight = facts.dequantizer(node.input[0], MOVES), facts.weight(node)
    if data is not None and facts.grid(data).per_channel:
        yield RULES["ORT013"].at(node)
    if node.op_type == "Conv" and weight is not None:
        grid = facts.grid(weight)
        if grid.per_channel and grid.axis % 4 != 0:
            yield RULES["ORT014"].at(node, f"Its weight has one scale per slice of axis {grid.axis}, not of axis 0.")


def _instruction_set(node: onnx.NodeProto, grid: Grid, facts: Facts, target: Target | None) -> Iterator[Finding]:
    array = facts.array(grid.node.input[0])
    if target is None or array is None or array.dtype != np.int8 or not array.size:
        return
    low, high = int(array.min()), int(array.max())
    if target.isa.arch == "x86_64":
        if {"avx512_vnni", "avx_vnni"} <= set(target.isa.excludes) and max(-low, high) > _SAFE:
            peak = max(-low, high)
            yield RULES["ORT019"].at(
                node, f"Its weight reaches ±{peak}; beyond ±{_SAFE} pairs of products may saturate."
            )
    elif low == -128 and "asimddp" not in target.isa.requires:
        yield RULES["ORT020"].at(node, f"{int((array == -128).sum())} of {array.size} elements of its weight are -128.")
