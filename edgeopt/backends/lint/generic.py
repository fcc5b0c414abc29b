"""What no runtime likes: scales and weights that are no numbers, grids that no layer can use, layouts turned around."""

# ruff: noqa: ARG001 (every file's check gets the same arguments)

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from edgeopt.backends.base import Finding
from edgeopt.backends.lint.base import Rule, by_id, node_name
from edgeopt.backends.lint.facts import Facts, Grid, attribute

if TYPE_CHECKING:
    import onnx

    from edgeopt.targets.schema import RuntimeRules, Target

__all__ = ["RULES", "both_ways", "check"]

_QUANTIZE = "ONNX documentation, QuantizeLinear and DequantizeLinear"
RULES: Mapping[str, Rule] = by_id(
    Rule(
        id="GEN004",
        effect="wrong",
        title="a weight that holds NaN or infinity",
        why="Every output that it reaches is NaN.",
        fix="Train again, or find the step that broke the weight.",
        source="IEEE 754; experiment: ONNX Runtime 1.32 and OpenVINO 2026.4.1 give NaN",
    ),
    Rule(
        id="GEN005",
        effect="wrong",
        title="a scale that is not a number above 0",
        why="Runtimes disagree on what such a scale means.",
        fix="Calibrate again; a tensor that was always 0 gets any scale above 0.",
        source=f"{_QUANTIZE}; experiment: at scale -0.05 OpenVINO 2026.4.1 is off by 5.9 times the outputs' reach from "
        "ONNX Runtime 1.32, at scale 0 ONNX Runtime by all of it, and TensorRT-RTX 1.7.1 refuses both",
    ),
    Rule(
        id="GEN006",
        effect="wrong",
        title="a matrix product's weight with scales along the summed axis",
        why="The products of a sum have different scales: no integer kernel can add them, and runtimes do not notice.",
        fix="Quantize the weight along its output channels.",
        source="experiment: MatMul and Gemm with scales along the input channels, outputs off by 18 % of their reach on "
        "ONNX Runtime 1.32 and 29 % on OpenVINO 2026.4.1, without a word",
    ),
    Rule(
        id="GEN007",
        effect="accuracy",
        title="one scale for channels of very different reach",
        why="The smallest channels keep less than three bits.",
        fix="Give the weight one scale per output channel.",
        source="Nagel et al., A White Paper on Neural Network Quantization (arXiv:2106.08295), section 2.2.3",
    ),
    Rule(
        id="GEN008",
        effect="portable",
        title="a quantized weight that cannot be per channel: its readers' output channels lie on different axes",
        why="One scale per channel for one reader is one per summed input for the other.",
        fix="Store the weight twice.",
        source="Jacob et al., Quantization and Training of Neural Networks (arXiv:1712.05877), section 2.2",
    ),
    Rule(
        id="GEN009",
        effect="portable",
        title="an int8 weight that holds -128",
        why="On ARM cores without dot product two such products overflow 16 bits; LiteRT's weights end at -127.",
        fix="Quantize weights to [-127, 127].",
        source="onnxruntime#31573; LiteRT documentation, LiteRT 8-bit quantization specification",
    ),
    Rule(
        id="GEN010",
        effect="portable",
        title="a layout turned to channels-last and back between convolutions",
        why="Every turn is a pass over the tensor, and int8 does not always survive it.",
        fix="Export the model channels-first throughout.",
        source="NVIDIA TensorRT documentation, Best Practices, reformatting; ONNX Runtime documentation, Graph optimizations",
    ),
)
_TO_LAST, _TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
_NEAR = 6
_FEW_LEVELS = 4  # of 127: less than three bits


def check(facts: Facts, target: Target | None, rules: RuntimeRules) -> Iterator[Finding]:
    """Grids, weights, layouts."""
    for node in facts.nodes:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and rules.name != "tensorrt":
            yield from _scale(facts.grid(node))  # TensorRT's own rule on scales is TRT003
    for node in facts.weighted():
        yield from _float_weight(node, facts)
        weight = facts.weight(node)
        if weight is not None:
            yield from _integer_weight(node, facts.grid(weight), facts)
    for node, name in both_ways(facts, quantized=True):
        yield RULES["GEN008"].at(node, f"{name!r} is read along two axes.")
    yield from _layouts(facts)


def _scale(grid: Grid) -> Iterator[Finding]:
    if grid.scale is not None and not _is_positive(grid.scale):
        yield RULES["GEN005"].at(grid.node, f"A scale is {_worst(grid.scale)}; every scale must be a number above 0.")


def _is_positive(scale: np.ndarray) -> bool:
    values = scale.astype(np.float64)
    return bool(np.all(np.isfinite(values) & (values > 0)))


def _worst(scale: np.ndarray) -> float:
    values = scale.astype(np.float64).ravel()
    bad = values[~(np.isfinite(values) & (values > 0))]
    return float(bad[0])


def _float_weight(node: onnx.NodeProto, facts: Facts) -> Iterator[Finding]:
    for name in node.input[1:]:
        kind = facts.dtype(name)
        if kind is None or not kind.startswith(("float", "bfloat")):
            continue
        array = facts.array(name)
        # One sum tells: NaN and infinity survive it, and so does overflow, which is looked at again.
        if array is not None and array.size and not np.isfinite(array.sum(dtype=np.float32)):
            bad = int((~np.isfinite(array.astype(np.float32))).sum())
            if bad:
                yield RULES["GEN004"].at(node, f"{bad} of {array.size} elements of {name!r} are NaN or infinite.")


def _integer_weight(node: onnx.NodeProto, grid: Grid, facts: Facts) -> Iterator[Finding]:
    channels = _channel_axis(node, facts)
    array = facts.array(grid.node.input[0])
    if array is None or not array.ndim or grid.blocked:
        return
    axis = grid.axis % array.ndim
    if grid.per_channel and node.op_type in ("Gemm", "MatMul") and array.ndim == 2 and axis != channels:
        yield RULES["GEN006"].at(node, f"Its weight has one scale per slice of axis {axis}, which is summed over.")
    if not grid.per_channel and array.dtype == np.int8 and array.ndim > 1 and array.shape[channels] > 1:
        others = tuple(i for i in range(array.ndim) if i != channels)
        peaks = np.maximum(array.max(axis=others), -array.min(axis=others).astype(np.int16))
        few = int(((peaks > 0) & (peaks < _FEW_LEVELS)).sum())
        if few and array.min() != array.max():  # one value all over, as of an average, is exact on any level
            yield RULES["GEN007"].at(
                node, f"{few} of its {peaks.size} output channels use fewer than {_FEW_LEVELS} levels."
            )
    if array.dtype == np.int8 and array.size and int(array.min()) == -128:
        yield RULES["GEN009"].at(node, f"{int((array == -128).sum())} of {array.size} elements of its weight are -128.")


def _channel_axis(node: onnx.NodeProto, facts: Facts) -> int:
    """The axis of the stored weight that holds the output channels."""
    if node.op_type in ("Conv", "ConvTranspose"):
        return 0 if node.op_type == "Conv" else 1
    turned = facts.maker(node.input[1])
    flips = turned is not None and turned.op_type == "Transpose"
    if node.op_type == "Gemm" and attribute(node, "transB", 0):
        flips = not flips
    return 0 if flips else 1


def both_ways(facts: Facts, *, quantized: bool) -> Iterator[tuple[onnx.NodeProto, str]]:
    """The constant weights whose readers' output channels lie on different axes, each with its first reader.

    Args:
        quantized: Whether only stored integers count; else float weights too.
    """
    axes: dict[str, dict[int, onnx.NodeProto]] = {}
    for node in facts.weighted():
        weight = facts.weight(node)
        name = weight.input[0] if weight is not None else _float_constant(node, facts)
        if name and (weight is not None or not quantized):
            axes.setdefault(name, {}).setdefault(_channel_axis(node, facts), node)
    for name, found in axes.items():
        if len(found) > 1:
            yield next(iter(found.values())), name


def _float_constant(node: onnx.NodeProto, facts: Facts) -> str:
    turned = facts.makers.get(node.input[1])
    name = turned.input[0] if turned is not None and turned.op_type == "Transpose" else node.input[1]
    return name if name in facts.tensors else ""


def _layouts(facts: Facts) -> Iterator[Finding]:
    for node in facts.nodes:
        if node.op_type != "Transpose" or _perm(node) != _TO_LAST:
            continue
        before, back = facts.maker(node.input[0]), _turned_back(facts, node)
        if before is not None and before.op_type != "Transpose" and back is not None:
            yield RULES["GEN010"].at(
                node, f"It turns the layout to channels-last, and {node_name(back)!r} turns it back."
            )


def _turned_back(facts: Facts, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """The nearest Transpose to channels-first behind ``node``, a few nodes away."""
    seen, edge = {id(node)}, [node]
    for _ in range(_NEAR):
        readers = [r for n in edge for name in n.output for r in facts.readers.get(name, []) if id(r) not in seen]
        back = next((r for r in readers if r.op_type == "Transpose" and _perm(r) == _TO_FIRST), None)
        if back is not None:
            return back
        seen |= {id(reader) for reader in readers}
        edge = [reader for reader in readers if reader.op_type != "Transpose"]
    return None


def _perm(node: onnx.NodeProto) -> tuple[int, ...]:
    return next((tuple(a.ints) for a in node.attribute if a.name == "perm"), ())
