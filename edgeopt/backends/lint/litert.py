"""What LiteRT's 8-bit scheme does not have. Static rules from its documentation.

LiteRT reads no ONNX: a model reaches it through PyTorch. The rules say whether the quantization in the graph is one
that LiteRT's kernels have; they were not held against the runtime here.
"""

# ruff: noqa: ARG001 (every file's check gets the same arguments)

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from edgeopt.backends.base import Finding
from edgeopt.backends.lint.base import Rule, by_id
from edgeopt.backends.lint.facts import ONNX_DOMAINS, Facts

if TYPE_CHECKING:
    import onnx

    from edgeopt.targets.schema import RuntimeRules, Target

__all__ = ["RULES", "check"]

_SPEC = "LiteRT documentation, LiteRT 8-bit quantization specification"
_UNSEEN = "not checked against the runtime"
RULES: Mapping[str, Rule] = by_id(
    Rule(
        id="LRT001",
        effect="refused",
        title="a weight whose zero point is not 0, or that is not int8",
        why="Weights are symmetric int8.",
        fix="Quantize the weight symmetrically.",
        source=f"{_SPEC}, Symmetric vs asymmetric; {_UNSEEN}",
    ),
    Rule(
        id="LRT002",
        effect="refused",
        title="an activation with one scale per channel",
        why="Activations have one scale and one zero point.",
        fix="Use one scale for the tensor.",
        source=f"{_SPEC}, Per-axis vs per-tensor; {_UNSEEN}",
    ),
    Rule(
        id="LRT003",
        effect="refused",
        title="convolution weights with scales along another axis than the output channels'",
        why="Per-axis scales lie along the output channels.",
        fix="Quantize the weight per output channel.",
        source=f"{_SPEC}, Per-axis vs per-tensor; {_UNSEEN}",
    ),
    Rule(
        id="LRT004",
        effect="portable",
        title="uint8 activations",
        why="Kernels are written for int8; uint8 belongs to the older scheme.",
        fix="Write them as int8: the zero point moves by 128, the points stay.",
        source=f"{_SPEC}, Signed integer vs unsigned integer; {_UNSEEN}",
        level="warning",
    ),
    Rule(
        id="LRT005",
        effect="portable",
        title="an int8 weight that holds -128",
        why="Weights lie in [-127, 127].",
        fix="Quantize weights to [-127, 127].",
        source=f"{_SPEC}, Specification summary; {_UNSEEN}",
        level="warning",
    ),
    Rule(
        id="LRT006",
        effect="slow",
        title="an input that varies beyond its batch",
        why="Delegates such as XNNPACK plan fixed shapes.",
        fix="Give the model fixed sizes.",
        source=f"LiteRT documentation, LiteRT delegates; {_UNSEEN}",
    ),
    Rule(
        id="LRT007",
        effect="refused",
        title="an int32 bias that is not in units of the input's step times the weight's",
        why="A bias has the input's scale times the weight's, and zero point 0.",
        fix="Store the bias on that step, or as float.",
        source=f"{_SPEC}, Int8 quantized operator specifications; {_UNSEEN}",
    ),
    Rule(
        id="LRT008",
        effect="refused",
        title="an operator of another domain than ONNX's own",
        why="Nothing converts it.",
        fix="Convert the PyTorch model itself.",
        source=f"LiteRT documentation, Convert PyTorch models; {_UNSEEN}",
    ),
)


def check(facts: Facts, target: Target | None, rules: RuntimeRules) -> Iterator[Finding]:
    """Inputs, operators, activations, then layer by layer."""
    for spec in facts.graph.inputs:
        if any(isinstance(dim, str) for dim in spec.shape[1:]):
            yield RULES["LRT006"].at(spec.name, f"The input {spec} varies beyond its batch.")
    for node in facts.nodes:
        if node.domain not in ONNX_DOMAINS:
            yield RULES["LRT008"].at(node, f"Nothing converts {node.domain}::{node.op_type}.")
        elif node.op_type == "QuantizeLinear" and node.input[0] not in facts.tensors:
            grid = facts.grid(node)
            if grid.per_channel:
                yield RULES["LRT002"].at(node)
            if grid.dtype == "uint8":
                yield RULES["LRT004"].at(node)
    for node in facts.weighted():
        yield from _layer(node, facts)


def _layer(node: onnx.NodeProto, facts: Facts) -> Iterator[Finding]:
    weight = facts.weight(node)
    if weight is None:
        return
    grid, array = facts.grid(weight), facts.array(weight.input[0])
    if grid.zero_point != 0 or grid.dtype not in ("int8", "int4"):
        yield RULES["LRT001"].at(node, f"Its weight is {grid.dtype} with zero point {grid.zero_point}.")
    wanted = 1 if node.op_type == "ConvTranspose" else 0
    if node.op_type.startswith("Conv") and grid.per_channel and grid.axis % 4 != wanted:
        yield RULES["LRT003"].at(node, f"Its weight has one scale per slice of axis {grid.axis}, not of {wanted}.")
    if array is not None and array.dtype == np.int8 and array.size and int(array.min()) == -128:
        yield RULES["LRT005"].at(node)
    data = facts.dequantizer(node.input[0])
    bias = facts.dequantizer(node.input[2]) if len(node.input) > 2 else None
    if data is None or bias is None:
        return
    scales = [facts.grid(each).scale for each in (data, weight, bias)]
    if all(scale is not None for scale in scales) and scales[0].size == 1:  # type: ignore[union-attr]
        step = scales[0].reshape(()) * scales[1].ravel()  # type: ignore[union-attr]
        if not np.allclose(scales[2].ravel(), step, rtol=1e-3, atol=0):  # type: ignore[union-attr]
            yield RULES["LRT007"].at(node)
