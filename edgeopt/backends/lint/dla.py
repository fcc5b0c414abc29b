"""What the deep learning accelerators of some Jetsons do not take: those layers run on the GPU instead.

Static rules from NVIDIA's documentation. Nothing here was held against a DLA: no machine without one can build for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from edgeopt.backends.base import Finding
from edgeopt.backends.lint.base import Rule, by_id
from edgeopt.backends.lint.facts import ONNX_DOMAINS, Facts

if TYPE_CHECKING:
    import onnx

    from edgeopt.targets.schema import RuntimeRules, Target

__all__ = ["RULES", "check"]

_DOCUMENT = "NVIDIA TensorRT documentation, DLA Supported Layers and Restrictions"
_LIMITS = f"{_DOCUMENT}, General Restrictions"
RULES: Mapping[str, Rule] = by_id(
    Rule(
        id="DLA001",
        effect="portable",
        title="a batch above 4096",
        why="A DLA takes batches up to 4096.",
        fix="Compile for a smaller batch, or leave it to the GPU.",
        source=_LIMITS,
    ),
    Rule(
        id="DLA002",
        effect="portable",
        title="a dimension above 8192",
        why="A DLA takes dimensions beside the batch up to 8192.",
        fix="Make the tensor smaller, or leave it to the GPU.",
        source=_LIMITS,
    ),
    Rule(
        id="DLA003",
        effect="portable",
        title="a dynamic shape",
        why="A DLA takes fixed shapes only: a profile's smallest, best and largest must be equal.",
        fix="Export with a fixed batch, or set the same batch for all three.",
        source=_LIMITS,
    ),
    Rule(
        id="DLA004",
        effect="portable",
        title="an operator that a DLA does not have",
        why="It runs on the GPU, and the tensor goes there and back.",
        fix="Replace the operator, or leave the layers around it to the GPU.",
        source=f"{_DOCUMENT}, Layer Support and Restrictions",
    ),
    Rule(
        id="DLA005",
        effect="portable",
        title="explicit quantization (Q/DQ)",
        why="The DLA's int8 comes from calibrated ranges; Q/DQ nodes run on the GPU.",
        fix="Use fp16 on the DLA, or int8 on the GPU.",
        source="NVIDIA TensorRT documentation, Working with DLA (TensorRT 8 and 10)",
    ),
)
_MAX_BATCH, _MAX_DIM = 4096, 8192
_TAKES = frozenset(
    """
    Conv ConvTranspose Relu Sigmoid Tanh Clip LeakyRelu MaxPool AveragePool Add Sub Mul
    Div Max Min Pow Equal Concat Slice Shape Resize Softmax LRN BatchNormalization ReduceMax Reshape Flatten Transpose
    PRelu Exp Log Sqrt Reciprocal Abs Neg Identity Constant Dropout Squeeze Unsqueeze Pad
    """.split()  # noqa: SIM905 (names read better as text)
)


def check(facts: Facts, target: Target | None, rules: RuntimeRules) -> Iterator[Finding]:  # noqa: ARG001
    """Only for targets that have a DLA."""
    if not getattr(target, "dla_cores", 0):
        return
    for spec in facts.graph.inputs:
        if any(isinstance(dim, str) for dim in spec.shape):
            yield RULES["DLA003"].at(spec.name, f"The input {spec} is dynamic.")
        fixed = [dim for dim in spec.shape if isinstance(dim, int)]
        if isinstance(spec.batch, int) and spec.batch > _MAX_BATCH:
            yield RULES["DLA001"].at(spec.name, f"The input {spec} has a batch above {_MAX_BATCH}.")
        if any(dim > _MAX_DIM for dim in fixed[1:] if isinstance(spec.batch, int)):
            yield RULES["DLA002"].at(spec.name, f"The input {spec} has a dimension above {_MAX_DIM}.")
    seen: set[str] = set()
    for node in facts.nodes:
        if node.op_type.endswith("uantizeLinear"):
            if "Q/DQ" not in seen:
                yield RULES["DLA005"].at(node)
            seen.add("Q/DQ")
        elif not _takes(node) and node.op_type not in seen:
            seen.add(node.op_type)  # one finding per operator: a plan per layer is the build's business
            yield RULES["DLA004"].at(node, f"A DLA has no {node.op_type}: it runs on the GPU.")


def _takes(node: onnx.NodeProto) -> bool:
    return node.domain in ONNX_DOMAINS and node.op_type in _TAKES
