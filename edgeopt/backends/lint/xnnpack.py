"""Quantized products that XNNPACK and LiteRT run in float: their int8 kernels read int8 and write int8.

``backends.torch_program.placement`` decides the same when it compiles; the tests hold one to the other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from edgeopt.backends.base import Finding
from edgeopt.backends.executorch_delegates import HERE
from edgeopt.backends.lint.base import Rule, by_id
from edgeopt.backends.lint.facts import Facts

if TYPE_CHECKING:
    import onnx

    from edgeopt.targets.schema import RuntimeRules, Target

__all__ = ["RULES", "check"]

_SOURCE = "experiment: ExecuTorch 1.5 and LiteRT 2.1, coverage read back from the compiled files"
# What may lie between a product and its Q, in this order. LiteRT's converter moves a Q before a maximum, ExecuTorch's does not.
_ABSORBED = {"executorch": (("Relu", "Clip"),), "litert": (("Relu", "Clip"), ("MaxPool",))}
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
    """Every layer whose weight is quantized; other delegates are not XNNPACK's."""
    if rules.options.get("delegate", HERE) != HERE:
        return
    for node in facts.weighted():
        if facts.weight(node) is None:
            continue
        if facts.dequantizer(node.input[0]) is None:
            yield RULES["XNN001"].at(node)
        elif not _is_quantized_next(node, facts, _ABSORBED[rules.name]):
            yield RULES["XNN002"].at(node)


def _is_quantized_next(node: onnx.NodeProto, facts: Facts, absorbed: Sequence[Collection[str]]) -> bool:
    reader = _only_reader(node, facts)
    if node.op_type == "MatMul" and reader is not None and _adds_bias(reader, facts):
        reader = _only_reader(reader, facts)
    for kind in absorbed:
        if reader is not None and reader.op_type in kind:
            reader = _only_reader(reader, facts)
    return reader is not None and reader.op_type == "QuantizeLinear"


def _adds_bias(node: onnx.NodeProto, facts: Facts) -> bool:
    """Whether it adds a constant vector, which edgeopt puts into the product before it."""
    return node.op_type == "Add" and any(len(facts.shape(name) or ()) == 1 for name in node.input)


def _only_reader(node: onnx.NodeProto, facts: Facts) -> onnx.NodeProto | None:
    """The one node that reads what ``node`` gives, where the graph does not give it out too."""
    readers = facts.readers.get(node.output[0], [])
    return readers[0] if len(readers) == 1 and node.output[0] not in facts.outputs else None
