"""Which quantized products a runtime with int8 outputs can run in int8, and why the others cannot."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

from edgeopt.backends.graphs import WEIGHTED_OPS
from edgeopt.backends.torch_program.graph import Node, Plan

__all__ = ["FLOAT_INPUT", "NOT_PLANNED", "fix_of", "without_int8"]

NOT_PLANNED = "it is not quantized in the graph"

_ACTIVATIONS = ("Relu", "Clip")
# What may lie between a product and its Q, in this order. LiteRT's converter moves a Q before a maximum, ExecuTorch's does not.
_ABSORBED: Mapping[str, tuple[tuple[str, ...], ...]] = {"LiteRT": (_ACTIVATIONS, ("MaxPool",))}
_NO_Q = "its output is not quantized, and {runtime} has kernels that write int8 only"
FLOAT_INPUT = "its input is not quantized"


def without_int8(plan: Plan, runtime: str) -> dict[str, str]:
    """Nodes with a quantized weight that have no int8 kernel where they stand → why, as a clause.

    XNNPACK and LiteRT take a product in int8 where a DequantizeLinear feeds it and a QuantizeLinear alone reads what it
    (or what the runtime absorbs right behind it) gives. Elsewhere ExecuTorch would not delegate it at all, and dequantize its whole
    weight in every inference.
    """
    makers = {name: node for node in plan.nodes for name in node.outputs}
    readers: defaultdict[str, list[Node]] = defaultdict(list)
    for node in plan.nodes:
        for name in node.inputs:
            readers[name].append(node)
    kept = {spec.name for spec in plan.outputs}
    found = {}
    for node in plan.nodes:
        if node.op not in WEIGHTED_OPS or not _is_quantized_weight(node.inputs[1], makers, plan):
            continue
        source = makers.get(node.inputs[0])
        if source is None or source.op != "DequantizeLinear":
            found[node.name] = FLOAT_INPUT
        elif not _is_quantized_next(node.outputs[0], readers, kept, _ABSORBED.get(runtime, (_ACTIVATIONS,))):
            found[node.name] = _NO_Q.format(runtime=runtime)
    return found


def fix_of(cause: str) -> str:
    """What would bring a product inside, where that is known."""
    if "its output is not quantized" in cause:
        return (
            "quantize its output: quantize_conv_outputs and quantize_linear_outputs in the target; a last layer stays"
        )
    return ""


def _is_quantized_weight(name: str, makers: Mapping[str, Node], plan: Plan) -> bool:
    maker = makers.get(name)
    while maker is not None and maker.op in ("Transpose", "Reshape"):
        maker = makers.get(maker.inputs[0])
    return maker is not None and maker.op == "DequantizeLinear" and maker.inputs[0] in plan.constants


def _is_quantized_next(
    name: str, readers: Mapping[str, list[Node]], kept: set[str], absorbed: Sequence[Collection[str]]
) -> bool:
    def only_reader(value: str) -> Node | None:
        found = readers.get(value, [])
        return found[0] if len(found) == 1 and value not in kept else None

    reader = only_reader(name)
    for kind in absorbed:
        if reader is not None and reader.op in kind:
            reader = only_reader(reader.outputs[0])
    return reader is not None and reader.op == "QuantizeLinear"
