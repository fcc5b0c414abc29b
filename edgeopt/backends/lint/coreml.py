"""What stops a conversion to Core ML. It reads no ONNX: a graph reaches it through a torch program and coremltools.

Held against coremltools 9.0 here; Core ML itself runs on Apple's systems only, and was not asked.
"""

# ruff: noqa: ARG001 (every file's check gets the same arguments)

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from edgeopt.backends.base import Finding
from edgeopt.backends.coreml_names import PORT_TYPES, deployment_target, takes_quantization
from edgeopt.backends.lint.base import Rule, by_id
from edgeopt.backends.lint.facts import ONNX_DOMAINS, Facts, attribute
from edgeopt.backends.torch_program.table import unknown
from edgeopt.core.spec import TensorSpec

if TYPE_CHECKING:
    import onnx

    from edgeopt.targets.schema import RuntimeRules, Target

__all__ = ["RULES", "check"]

_MAX_RANK = 5
_BFLOAT16 = 16  # onnx.TensorProto.BFLOAT16
_INTEGERS = ("int8", "uint8")
_GUIDE = "coremltools documentation"
RULES: Mapping[str, Rule] = by_id(
    Rule(
        id="CML001",
        effect="refused",
        title="an opset that edgeopt's writer of torch programs does not know",
        why="The graph has a newer opset than the target's rules read.",
        fix="Export the model with an older opset.",
        source="edgeopt's table of operators, backends/torch_program/table.py, and the target's opset_max",
    ),
    Rule(
        id="CML002",
        effect="refused",
        title="an input that varies beyond its batch",
        why="edgeopt writes packages of fixed sizes, the form that the Neural Engine runs.",
        fix="Give the model fixed sizes: --input NAME:DTYPE[batch,3,224,224].",
        source=f"{_GUIDE}, Flexible Input Shapes, Performance",
    ),
    Rule(
        id="CML003",
        effect="refused",
        title="an operator that edgeopt does not write in torch",
        why="coremltools converts a torch program, and edgeopt cannot write this operator as one.",
        fix="Compile for a runtime that reads ONNX (onnxruntime, openvino), or replace the operator.",
        source="edgeopt's table of operators, backends/torch_program/table.py",
    ),
    Rule(
        id="CML004",
        effect="refused",
        title="an input or output of a type that a package cannot have",
        why="Inputs and outputs of a package are float32, float16 or int32; int64 becomes int32.",
        fix="Convert it inside the model, so that the input or output has one of these types.",
        source=f"{_GUIDE}, Model Input and Output Types, MultiArray; source of coremltools 9.0, input_types.py, TensorType",
    ),
    Rule(
        id="CML005",
        effect="refused",
        title="an input or output of more than 5 dimensions",
        why="Core ML's arrays have at most 5 dimensions.",
        fix="Put dimensions together with a reshape before the output, and apart behind the input.",
        source="source of coremltools 9.0, converters/mil/mil/program.py; experiment: a ReLU of six dimensions is refused",
    ),
    Rule(
        id="CML006",
        effect="refused",
        title="an activation quantized to another type than int8 or uint8, or with one scale per channel",
        why="MIL's quantize writes int8 and uint8 only, and coremltools converts no scales per channel there.",
        fix="Quantize activations to 8 bits, with one scale for the tensor.",
        source="source of coremltools 9.0, converters/mil/mil/ops/defs/iOS17/quantization_ops.py, quantize; "
        "converters/mil/frontend/torch/quantization_ops.py",
    ),
    Rule(
        id="CML007",
        effect="refused",
        title="quantized activations for a system older than iOS 17 and macOS 14",
        why="MIL has quantize and dequantize since iOS 17 and macOS 14.",
        fix="Set minimum_deployment_target to iOS17 or macOS14, or compile in float.",
        source=f"{_GUIDE}, Optimizing Models, What's New, Software Availability of Optimizations",
    ),
    Rule(
        id="CML008",
        effect="slow",
        title="quantized layers between float32 values",
        why="The Neural Engine computes in float16 and int8; around float32 values Core ML stays on CPU or GPU, where "
        "quantized activations are slower than float.",
        fix="Compile with an int8-fp16 recipe, or in fp16.",
        source=f"{_GUIDE}, Typed Execution; Optimizing Models, Quantization, Performance",
        level="note",
    ),
    Rule(
        id="CML009",
        effect="refused",
        title="a form of an operator that has no counterpart in a package",
        why="The operator converts, and not in this form.",
        fix="Replace it in the model, or compile for a runtime that reads ONNX (onnxruntime, openvino).",
        source="experiment: coremltools 9.0 refuses a dilated max-pool and bfloat16; edgeopt's writer of torch programs, "
        "padding that wraps and indices of a max-pool",
    ),
)


def check(facts: Facts, target: Target | None, rules: RuntimeRules) -> Iterator[Finding]:
    """Inputs and outputs, then the operators, then quantization."""
    if facts.graph.opset > rules.opset_max:
        newest = rules.opset_max
        yield RULES["CML001"].at(None, f"The graph has opset {facts.graph.opset}; coreml is written up to {newest}.")
    for spec in (*facts.graph.inputs, *facts.graph.outputs):
        yield from _port(spec, is_input=spec in facts.graph.inputs)
    yield from _operators(facts)
    quantizers = [n for n in facts.nodes if n.op_type == "QuantizeLinear" and n.input[0] not in facts.tensors]
    system = deployment_target(rules)
    if quantizers and not takes_quantization(system):
        yield RULES["CML007"].at(quantizers[0], f"{system} has no quantized activations.")
    for node in quantizers:
        grid = facts.grid(node)
        if grid.dtype is not None and grid.dtype not in _INTEGERS:
            yield RULES["CML006"].at(node, f"Its activation is {grid.dtype}.")
        elif grid.per_channel:
            yield RULES["CML006"].at(node, "Its activation has one scale per channel.")
    if quantizers and "float16" not in {_type_of(facts, node) for node in quantizers}:
        yield RULES["CML008"].at(quantizers[0])


def _port(spec: TensorSpec, *, is_input: bool) -> Iterator[Finding]:
    which = "input" if is_input else "output"
    if is_input and any(isinstance(dim, str) for dim in spec.shape[1:]):
        yield RULES["CML002"].at(spec.name, f"The input {spec} varies beyond its batch.")
    if spec.dtype not in PORT_TYPES:
        yield RULES["CML004"].at(spec.name, f"The {which} {spec} is {spec.dtype}.")
    if len(spec.shape) > _MAX_RANK:
        yield RULES["CML005"].at(spec.name, f"The {which} {spec} has {len(spec.shape)} dimensions.")


def _operators(facts: Facts) -> Iterator[Finding]:
    """Every operator that has no function, at its first node."""
    first: dict[str, onnx.NodeProto] = {}
    for node in facts.nodes:
        name = node.op_type if node.domain in ONNX_DOMAINS else f"{node.domain}.{node.op_type}"
        first.setdefault(name, node)
        if form := _odd_form(node):
            yield RULES["CML009"].at(node, f"{name} {form}.")
    for name in unknown(first):
        yield RULES["CML003"].at(first[name], f"edgeopt cannot write {name} as a torch program.")


def _odd_form(node: onnx.NodeProto) -> str:
    """What of it cannot be converted, as a clause; empty where all of it can."""
    if node.op_type == "MaxPool":
        if len(node.output) > 1 and node.output[1]:
            return "gives indices"
        if any(step != 1 for a in node.attribute if a.name == "dilations" for step in a.ints):
            return "has dilations"
    if node.op_type == "Pad" and any(a.name == "mode" and a.s == b"wrap" for a in node.attribute):
        return "wraps around"
    if node.op_type == "Cast" and attribute(node, "to", 0) == _BFLOAT16:
        return "gives bfloat16"
    return ""


def _type_of(facts: Facts, node: onnx.NodeProto) -> str:
    """A quantizer's float type, by its scale."""
    scale = facts.array(node.input[1])
    return "" if scale is None else scale.dtype.name
