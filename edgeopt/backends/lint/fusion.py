"""Whether ONNX Runtime fuses a quantized layer with its Q/DQ into an integer kernel, and if not, what is in the way.

ONNX Runtime 1.32 replaces DQ → layer → Q by one kernel. A convolution must have a Q behind it, a matrix product need
not. One Relu or Clip may stand between where Q's own range does the same. Reshapes, transposes and max-pools are moved
out of the way first. On x86 int8 activations become uint8 first, where one reader sees them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeopt.backends.lint.facts import Facts, Grid

if TYPE_CHECKING:
    import onnx

__all__ = ["MOVES", "Obstacle", "obstacle", "quantized_through"]

MOVES = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "MaxPool"})
"""What ONNX Runtime moves Q and DQ past."""
_WALLS = frozenset({"Flatten", "Concat", "Slice", "Identity", "Dropout", "Resize", "Expand", "Gather", "Split", "Pad"})
_CLIPS = ("Relu", "Clip")
_LIMITS = {"uint8": (0, 255), "int8": (-128, 127), "uint16": (0, 65535), "int16": (-32768, 32767)}
_SAME_STEP = 1e-2  # how far, relative, an int32 bias's step may be from input's times weight's


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """Why a layer is not fused: the rule, and a sentence for this place."""

    rule: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Behind:
    """What follows a layer: the Q that it reaches, or what stands in the way."""

    quantize: onnx.NodeProto | None = None
    clip: onnx.NodeProto | None = None
    what: str = ""


def obstacle(node: onnx.NodeProto, facts: Facts, *, signed: bool) -> Obstacle | None:
    """The first thing that keeps a quantized layer in float; None where it is fused.

    Args:
        node: A Conv, Gemm or MatMul whose input and weight (or second input) are dequantized.
        signed: Whether int8 activations have kernels (ARM); else they are made uint8 where that is possible (x86).
    """
    data, weight = facts.dequantizer(node.input[0], MOVES), facts.dequantizer(node.input[1], MOVES)
    if data is None or weight is None:
        return Obstacle(rule="ORT012", why=_wall(node, facts))
    grids = facts.grid(data), facts.grid(weight)
    return (
        _types(grids)
        or _bias(node, grids, facts)
        or (_convolution if node.op_type == "Conv" else _product)(node, grids, facts, signed=signed)
    )


def _types(grids: tuple[Grid, Grid]) -> Obstacle | None:
    for grid in grids:
        if grid.dtype in ("int16", "uint16", "int32"):
            return Obstacle(rule="ORT009", why=f"{grid.dtype} has no kernel: it runs in float.")
        if grid.scale is not None and grid.scale.dtype != np.float32:
            return Obstacle(rule="ORT009", why=f"Its scales are {grid.scale.dtype}: it runs in float.")
    return None


def _bias(node: onnx.NodeProto, grids: tuple[Grid, Grid], facts: Facts) -> Obstacle | None:
    name = node.input[2] if len(node.input) > 2 else ""
    if not name or name in facts.tensors:
        return None
    maker = facts.dequantizer(name)
    if maker is None:
        return Obstacle(rule="ORT010", why="Its bias is computed where the graph is run: it runs in float.")
    bias, data, weight = facts.grid(maker).scale, grids[0].scale, grids[1].scale
    if bias is None or data is None or weight is None or data.size != 1:
        return None
    wanted = data.reshape(()).astype(np.float64) * weight.ravel()
    if wanted.size not in (1, bias.size) and bias.size != 1:
        return None
    off = float(np.max(np.abs(bias.ravel() / np.where(wanted == 0, 1, wanted) - 1)))
    if off > _SAME_STEP:
        return Obstacle(
            rule="ORT007",
            why=f"Its int32 bias is off input's step times weight's by {100 * off:.3g} %: it runs in float.",
        )
    return None


def _convolution(node: onnx.NodeProto, grids: tuple[Grid, Grid], facts: Facts, *, signed: bool) -> Obstacle | None:
    behind = _behind(node.output[0], facts)
    if behind.quantize is None:
        return Obstacle(rule="ORT003", why=f"{behind.what}: it runs in float.")
    return _clip(behind, facts, signed=signed) or _same_type(node, grids, behind, facts, signed=signed)


def _product(  # noqa: PLR0911 - one return per obstacle
    node: onnx.NodeProto, grids: tuple[Grid, Grid], facts: Facts, *, signed: bool
) -> Obstacle | None:
    output, float_bias = (
        node.output[0],
        node.op_type == "Gemm" and len(node.input) > 2 and node.input[2] in facts.tensors,
    )
    is_gemm = node.op_type == "Gemm"
    added = _added_bias(node, facts)
    if added is not None:  # MatMul and Add of a constant become one Gemm first
        output, float_bias, is_gemm = added.output[0], True, True
    if is_gemm and not grids[1].has_zero:
        return Obstacle(rule="ORT005", why="Its weight has no zero point: it is unpacked, and multiplied in float.")
    behind = _behind(output, facts)
    if behind.clip is not None:
        if behind.quantize is None:
            return Obstacle(rule="ORT004", why=f"No Q follows the {behind.clip.op_type} behind it: it runs in float.")
        found = _clip(behind, facts, signed=signed)
        if found is not None:
            return found
    if behind.quantize is None:
        if any(reader.op_type == "QuantizeLinear" for reader in facts.readers.get(output, [])):
            return Obstacle(rule="ORT003", why=f"{behind.what}: it runs in float.")
        if float_bias:
            return Obstacle(
                rule="ORT011", why="Its bias is float and no Q follows: it is unpacked, multiplied in float."
            )
        if not is_gemm and _stays_signed(grids[0], facts, signed=signed):
            return Obstacle(rule="ORT002", why="Its int8 input is read in several places and stays int8.")
        return None
    return _same_type(node, grids, behind, facts, signed=signed or is_gemm)


def _added_bias(node: onnx.NodeProto, facts: Facts) -> onnx.NodeProto | None:
    """The Add behind a MatMul that ONNX Runtime makes one Gemm of both with, or None.

    It does so with two dimensions, and with more where all of them are fixed.
    """
    readers = facts.readers.get(node.output[0], [])
    weight = facts.weight(node)
    if node.op_type != "MatMul" or weight is None or len(readers) != 1 or readers[0].op_type != "Add":
        return None
    stored = facts.shape(weight.input[0]) or ()
    others = [name for name in readers[0].input if name != node.output[0]]
    added = facts.shape(others[0]) if others else None
    if node.output[0] in facts.outputs or len(stored) != 2 or not added or added[-1] not in stored:
        return None
    given = facts.shapes.get(node.input[0])
    fits = given is not None and (len(given) == 2 or all(isinstance(dim, int) for dim in given))
    return readers[0] if fits else None


def _behind(name: str, facts: Facts) -> _Behind:
    """Follow a layer's output past one Relu or Clip and past what is moved, up to the one Q."""
    clip: onnx.NodeProto | None = None
    moved = False
    for _ in range(64):
        readers = facts.readers.get(name, [])
        if name in facts.outputs:
            return _Behind(clip=clip, what="Its output leaves the graph as float")
        if len(readers) != 1:
            return _Behind(clip=clip, what=f"{len(readers)} nodes read its output, which needs exactly one Q behind it")
        reader = readers[0]
        if reader.op_type == "QuantizeLinear":
            return _Behind(quantize=reader, clip=clip)
        if reader.op_type in _CLIPS and clip is None and not moved:
            if reader.output[0] in facts.outputs and not facts.readers.get(reader.output[0]):
                return _Behind(what="Its output leaves the graph as float")
            clip = reader
        elif reader.op_type not in MOVES or len([o for o in reader.output if o]) > 1:
            return _Behind(clip=clip, what=f"No Q but {reader.op_type} follows it")
        else:
            moved = True
        name = reader.output[0]
    return _Behind(clip=clip, what="No Q follows it")


def _clip(behind: _Behind, facts: Facts, *, signed: bool) -> Obstacle | None:
    """Whether Q's own range does what the Relu or Clip in front of it does."""
    clip, quantize = behind.clip, behind.quantize
    if clip is None or quantize is None:
        return None
    grid = facts.grid(quantize)
    low, high = _LIMITS.get(grid.dtype or "", (0, 0))
    zero, scale = grid.zero_point, grid.scale
    if zero is None or scale is None or scale.size != 1 or low == high:
        return None
    step = float(scale.reshape(-1)[0])
    bounds = _bounds(clip, facts)
    if bounds is None:
        return Obstacle(rule="ORT004", why="The bounds of the Clip behind it are computed: it runs in float.")
    reach = (low - zero) * step, (high - zero) * step
    if bounds[0] <= reach[0] and reach[1] <= bounds[1]:
        return None
    encoded = grid.dtype if signed else "uint8"
    return Obstacle(
        rule="ORT004",
        why=f"Q behind it reaches from {reach[0]:.4g} to {reach[1]:.4g} and does not do the work of its {clip.op_type} "
        f"({bounds[0]:g} to {bounds[1]:g}; as {encoded}, zero point {zero}): it runs in float.",
    )


def _bounds(clip: onnx.NodeProto, facts: Facts) -> tuple[float, float] | None:
    if clip.op_type == "Relu":
        return 0.0, np.inf
    old = {a.name: a.f for a in clip.attribute if a.name in ("min", "max")}
    made = [old.get("min", -np.inf), old.get("max", np.inf)]
    for index, name in enumerate(clip.input[1:3]):
        if name:
            array = facts.array(name)
            if array is None or array.size != 1:
                return None
            made[index] = float(array.reshape(-1)[0])
    return made[0], made[1]


def _same_type(
    node: onnx.NodeProto, grids: tuple[Grid, Grid], behind: _Behind, facts: Facts, *, signed: bool
) -> Obstacle | None:
    if behind.quantize is None:
        return None
    stays = _stays_signed(grids[0], facts, signed=signed)
    if stays and node.op_type != "Gemm":
        return Obstacle(
            rule="ORT002", why="Its int8 input is read in several places, so it stays int8, which x86 runs in float."
        )
    given = _effective(grids[0].node, facts, signed=signed)
    made = _effective(behind.quantize, facts, signed=signed)
    if given is not None and made is not None and given != made:
        return Obstacle(rule="ORT006", why=f"It reads {given} and writes {made}: it runs in float.")
    if given == "int8" and grids[1].dtype == "uint8":
        return Obstacle(rule="ORT006", why="Its input is int8 and its weight uint8: it runs in float.")
    return None


def _stays_signed(grid: Grid, facts: Facts, *, signed: bool) -> bool:
    return not signed and grid.dtype == "int8" and _effective(grid.node, facts, signed=False) == "int8"


def _effective(node: onnx.NodeProto, facts: Facts, *, signed: bool) -> str | None:
    """The type of a Q or DQ once int8 with one reader has become uint8 (on x86)."""
    dtype = facts.grid(node).dtype
    if signed or dtype != "int8":
        return dtype
    quantize = node if node.op_type == "QuantizeLinear" else facts.makers.get(node.input[0])
    if quantize is None or quantize.op_type != "QuantizeLinear" or not facts.grid(quantize).has_zero:
        return dtype
    readers = facts.readers.get(quantize.output[0], [])
    if len(readers) != 1 or quantize.output[0] in facts.outputs or readers[0].op_type != "DequantizeLinear":
        return dtype
    name = readers[0].output[0]
    return dtype if len(facts.readers.get(name, [])) + (name in facts.outputs) != 1 else "uint8"


def _wall(node: onnx.NodeProto, facts: Facts) -> str:
    for name in node.input[:2]:
        maker = facts.maker(name, MOVES)
        if maker is not None and maker.op_type != "DequantizeLinear":
            return f"{maker.op_type} stands between its DequantizeLinear and it: it runs in float."
    return "Its input is not dequantized right in front of it: it runs in float."


def quantized_through(name: str, facts: Facts) -> bool:
    """Whether a tensor comes out of DequantizeLinear, whatever moves its values on the way."""
    return facts.dequantizer(name, MOVES | _WALLS) is not None
