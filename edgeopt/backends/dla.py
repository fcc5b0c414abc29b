"""Which nodes of a graph a Jetson's deep learning accelerator can run, by NVIDIA's published limits. Nothing is run.

The limits are those of TensorRT 10's ``NvInfer.h`` ("If executing this layer on DLA …") and of the documentation page
"DLA Supported Layers and Restrictions". What they leave open is counted as the GPU's. TensorRT decides on the device,
when it builds: a plan is no promise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeopt.backends.dla_facts import Facts
from edgeopt.backends.graphs import Graph

if TYPE_CHECKING:
    import onnx

__all__ = ["RULES", "DlaPlan", "Placement", "plan_dla"]

_HEADER = "NVIDIA TensorRT 10 NvInfer.h, documentation of its layers"
_PAGE = "NVIDIA TensorRT documentation, DLA Supported Layers and Restrictions"
_MOST_BATCH, _MOST_SIZE, _MOST_LOADABLES = 4096, 8192, 16

RULES: Mapping[str, tuple[str, str]] = {
    "DLA101": ("an operator that the DLA does not have", _PAGE),
    "DLA102": ("a parameter outside the DLA's range", _HEADER),
    "DLA103": ("a shape that the DLA does not take: not of four dimensions, too large, or not known", _PAGE),
    "DLA104": ("a wider type than float16: the DLA computes in float16 and int8", _PAGE),
    "DLA105": ("more parts than a DLA core holds at once: each return from the GPU begins another", _PAGE),
}
"""Rule id → what it finds, and whose word that is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Range:
    """Every number of an attribute lies within; ``default`` where the file does not say."""

    attribute: str
    low: int
    high: int
    default: int = 1


_RANGES: Mapping[str, tuple[_Range, ...]] = {
    "Conv": (
        _Range(attribute="kernel_shape", low=1, high=32),
        _Range(attribute="strides", low=1, high=8),
        _Range(attribute="pads", low=0, high=31, default=0),
        _Range(attribute="dilations", low=1, high=32),
        _Range(attribute="group", low=1, high=8192),
    ),
    "ConvTranspose": (
        _Range(attribute="kernel_shape", low=1, high=32),
        _Range(attribute="strides", low=1, high=32),
        _Range(attribute="pads", low=0, high=0, default=0),
        _Range(attribute="output_padding", low=0, high=0, default=0),
        _Range(attribute="dilations", low=1, high=1),
        _Range(attribute="group", low=1, high=1),
    ),
    "MaxPool": (
        _Range(attribute="kernel_shape", low=1, high=8),
        _Range(attribute="strides", low=1, high=16),
        _Range(attribute="pads", low=0, high=7, default=0),
        _Range(attribute="dilations", low=1, high=1),
    ),
    "Concat": (_Range(attribute="axis", low=1, high=1),),
}
_RANGES = {**_RANGES, "AveragePool": _RANGES["MaxPool"]}
_PLAIN = frozenset(
    {
        *("Relu", "Sigmoid", "Tanh", "LeakyRelu", "BatchNormalization"),
        *("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow", "Abs", "Sin", "Cos", "Atan", "Transpose", "Reshape"),
    }
)
# They hold numbers or end the graph: no accelerator is needed for them.
_NOTHING = frozenset({"Constant", "Identity"})
_FIXES = {
    "Gemm": "Write it as a convolution of 1 by 1 on [N, C, 1, 1].",
    "MatMul": "Write it as a convolution of 1 by 1 on [N, C, 1, 1].",
    "GlobalAveragePool": "Use AveragePool with windows of up to 8 by 8; two of them for larger maps.",
    "ReduceMean": "Use AveragePool with windows of up to 8 by 8; two of them for larger maps.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """One node.

    Attributes:
        on_dla: Whether the limits let it run there.
        rule: Of ``RULES``, where they do not; ``cause`` says why and ``fix`` what would help, where that is known.
    """

    node: str
    op: str
    on_dla: bool
    rule: str = ""
    cause: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DlaPlan:
    """Every node that computes, in the graph's order.

    Attributes:
        parts: How many runs of nodes for the DLA follow each other; each is a loadable of its own.
    """

    nodes: tuple[Placement, ...]
    parts: int

    @property
    def on_dla(self) -> int:
        """How many nodes run there."""
        return sum(node.on_dla for node in self.nodes)

    @property
    def on_gpu(self) -> tuple[Placement, ...]:
        """Those that fall back."""
        return tuple(node for node in self.nodes if not node.on_dla)

    @property
    def too_many_parts(self) -> bool:
        """Whether one core cannot hold them all at once."""
        return self.parts > _MOST_LOADABLES


def plan_dla(graph: Graph, batch: int, *, as_float16: bool = False) -> DlaPlan:
    """Place every node, with an open batch fixed at ``batch``.

    Args:
        as_float16: Whether a float32 graph is taken for what ``--recipe fp16`` makes of it.
    """
    facts = Facts.of(graph, batch)
    nodes = []
    parts, inside = 0, False
    for node in facts.model.graph.node:
        if node.op_type in _NOTHING:
            continue
        rule, cause = next(_against(node, facts, as_float16=as_float16), ("", ""))
        parts += not rule and not inside
        inside = not rule
        fix = _FIXES.get(node.op_type, "") if rule in ("DLA101", "DLA102") else ""
        nodes.append(
            Placement(
                node=node.name or node.output[0], op=node.op_type, on_dla=not rule, rule=rule, cause=cause, fix=fix
            )
        )
    return DlaPlan(nodes=tuple(nodes), parts=parts)


def _against(node: onnx.NodeProto, facts: Facts, *, as_float16: bool) -> Iterator[tuple[str, str]]:
    """What keeps a node from the DLA: rule and cause."""
    check = _CHECKS.get(node.op_type)
    if node.domain not in ("", "ai.onnx") or (node.op_type not in _PLAIN and node.op_type not in _RANGES and not check):
        yield "DLA101", f"The DLA has no {node.op_type}."
        return
    types = {facts.types.get(name, "") for name in (*node.input[:1], *node.output[:1]) if name}
    for wide in sorted((types & {"float32", "float64", "bfloat16"}) - ({"float32"} if as_float16 else set())):
        yield "DLA104", f"It computes in {wide}; the DLA does so in float16."
    if node.op_type == "MaxPool" and len(node.output) > 1:
        yield "DLA102", "It gives the places of its maxima too."
    for name in (*(name for name in node.input if name not in facts.constants), *node.output):
        if name and (problem := _shape_problem(name, facts)):
            yield "DLA103", problem
    for one in _RANGES.get(node.op_type, ()):
        values = _numbers(node, one, facts)
        if outside := [value for value in values if not one.low <= value <= one.high]:
            yield "DLA102", f"Its {one.attribute} is {outside[0]}; the DLA takes {_words(one)}."
    if check is not None and (problem := check(node, facts)):
        yield "DLA102", problem


def _words(one: _Range) -> str:
    return f"{one.low}" if one.low == one.high else f"{one.low} to {one.high}"


def _numbers(node: onnx.NodeProto, one: _Range, facts: Facts) -> Sequence[int]:
    attribute = next((a for a in node.attribute if a.name == one.attribute), None)
    if attribute is None:
        weight = facts.shapes.get(node.input[1]) if one.attribute == "kernel_shape" and len(node.input) > 1 else None
        return [int(dim) for dim in weight[2:]] if weight else [one.default]
    return list(attribute.ints) or [attribute.i]


def _shape_problem(name: str, facts: Facts) -> str:
    shape = facts.shapes.get(name)
    if shape is None:
        return f"The shape of {name} is not known before it runs."
    if len(shape) != 4:
        return f"{name} has {len(shape)} dimensions; the DLA takes four."
    if shape[0] > _MOST_BATCH:
        return f"{name} has a batch of {shape[0]}; the DLA takes up to {_MOST_BATCH}."
    if max(shape[1:]) > _MOST_SIZE:
        return f"{name} has a dimension of {max(shape[1:])}; the DLA takes up to {_MOST_SIZE}."
    return ""


def _clip(node: onnx.NodeProto, facts: Facts) -> str:
    low, high = (facts.number(node, index) for index in (1, 2))
    if low != 0 or high is None or not 1 <= high <= 127:
        return f"It clips to [{low}, {high}]; the DLA takes [0, 1] to [0, 127]."
    return ""


def _prelu(node: onnx.NodeProto, facts: Facts) -> str:
    return "" if node.input[1] in facts.constants else "Its slope is computed; the DLA takes a constant."


def _softmax(node: onnx.NodeProto, facts: Facts) -> str:
    shape = facts.shapes.get(node.input[0])
    axis = next((a.i for a in node.attribute if a.name == "axis"), -1)
    if shape is None:
        return "The shape of its input is not known before it runs."
    axis %= len(shape)
    if axis == 0:
        return "It runs over the batch."
    others = math.prod(dim for index, dim in enumerate(shape) if index not in (0, axis))
    most = 8192 if others == 1 else 1024
    return f"It runs over {shape[axis]} values; the DLA takes up to {most}." if shape[axis] > most else ""


def _reduce_max(node: onnx.NodeProto, facts: Facts) -> str:
    axes = next((list(a.ints) for a in node.attribute if a.name == "axes"), None)
    if axes is None and len(node.input) > 1 and (given := facts.constants.get(node.input[1])) is not None:
        axes = [int(axis) for axis in given]
    shape = facts.shapes.get(node.input[0]) or ()
    if not axes or 0 in [axis % max(len(shape), 1) for axis in axes]:
        return "It reduces the batch too."
    return ""


def _resize(node: onnx.NodeProto, facts: Facts) -> str:
    before, after = facts.shapes.get(node.input[0]), facts.shapes.get(node.output[0])
    if before is None or after is None or len(before) != 4:
        return "The shape of its input or output is not known before it runs."
    mode = next((a.s.decode() for a in node.attribute if a.name == "mode"), "nearest")
    most = {"nearest": 32, "linear": 4}.get(mode)
    if most is None:
        return f"Its mode is {mode}; the DLA takes nearest and linear."
    scales = [new / old for old, new in zip(before[2:], after[2:], strict=True)]
    if before[:2] != after[:2] or any(scale != int(scale) or not 1 <= scale <= most for scale in scales):
        return f"It scales by {scales[0]:g} and {scales[1]:g}; the DLA takes whole factors of 1 to {most}."
    return ""


def _lrn(node: onnx.NodeProto, facts: Facts) -> str:  # noqa: ARG001 (all checks are called alike)
    size = next((a.i for a in node.attribute if a.name == "size"), 0)
    return "" if size in (3, 5, 7, 9) else f"Its window is {size}; the DLA takes 3, 5, 7 and 9."


_CHECKS: Mapping[str, Callable[[Any, Any], str]] = {
    "Clip": _clip,
    "LRN": _lrn,
    "PRelu": _prelu,
    "ReduceMax": _reduce_max,
    "Resize": _resize,
    "Softmax": _softmax,
}
