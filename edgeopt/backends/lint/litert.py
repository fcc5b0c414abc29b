"""What LiteRT's converter and 8-bit scheme do not have, beside what holds for every torch program."""

# ruff: noqa: ARG001 (every file's check gets the same arguments)

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from edgeopt.backends.base import Finding
from edgeopt.backends.lint.base import Rule, by_id
from edgeopt.backends.lint.facts import Facts, attribute

if TYPE_CHECKING:
    from edgeopt.targets.schema import RuntimeRules, Target

__all__ = ["RULES", "check"]

_NO_KERNELS = {10: "float16", 11: "float64", 16: "bfloat16"}  # onnx.TensorProto's numbers
RULES: Mapping[str, Rule] = by_id(
    Rule(
        id="LRT005",
        effect="portable",
        title="an int8 weight that holds -128",
        why="Weights lie in [-127, 127]; XNNPACK takes -128 too, other delegates need not.",
        fix="Quantize weights to [-127, 127].",
        source="LiteRT documentation, LiteRT 8-bit quantization specification, Specification summary",
        level="warning",
    ),
    Rule(
        id="LRT009",
        effect="refused",
        title="a float16, bfloat16 or float64 tensor",
        why="LiteRT's converter has no kernels for it.",
        fix="Give it the float32 graph: recipe fp32 or int8-ptq.",
        source="experiment: litert-torch 0.10 on the lint's corpus",
    ),
)


def check(facts: Facts, target: Target | None, rules: RuntimeRules) -> Iterator[Finding]:
    """The first tensor of a type that is not taken, then weights."""
    for name, kind in _types(facts):
        if kind in _NO_KERNELS:
            yield RULES["LRT009"].at(name, f"{name} is {_NO_KERNELS[kind]}.")
            break
    for node in facts.weighted():
        weight = facts.weight(node)
        array = None if weight is None else facts.array(weight.input[0])
        if array is not None and array.dtype == np.int8 and array.size and int(array.min()) == -128:
            yield RULES["LRT005"].at(node)


def _types(facts: Facts) -> Iterator[tuple[str, int]]:
    """Tensors and their types: those that the file states, and those that a Cast makes."""
    graph = facts.graph.model.graph
    for value in (*graph.input, *graph.value_info, *graph.output):
        yield value.name, value.type.tensor_type.elem_type
    for tensor in facts.tensors.values():
        yield tensor.name, tensor.data_type
    for node in facts.nodes:
        if node.op_type == "Cast":
            yield node.output[0], attribute(node, "to", 0)
