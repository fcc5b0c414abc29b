"""Operations that move, select or repeat values. What they need of sizes is known when the program is built."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own habit)
from torch import Tensor

from edgeopt.backends.torch_program.values import QuantizedConstant, QuantizedTensor, Step, Value, is_constant

__all__ = ["concat", "depth_to_space", "expand", "flatten", "gather", "identity", "pad", "reshape", "shape", "slices"]
__all__ += ["space_to_depth", "split", "squeeze", "tile", "transpose", "unsqueeze"]


def shape(step: Step, x: Value) -> np.ndarray:
    """The sizes, which are all fixed."""
    given = step.tensor(x, "x")
    sizes = np.array([int(size) for size in given.shape], np.int64)
    return sizes[step.attribute("start", 0) : step.attribute("end", None)]


def identity(step: Step, x: Value, *others: Value) -> Value:  # noqa: ARG001
    """The same value: Identity, and Dropout outside of training."""
    if step.outputs > 1:
        raise step.refused("its mask is read")
    return x


def reshape(step: Step, x: Value, sizes: Value) -> Value:
    """Another shape; 0 keeps a size, −1 is what is left."""
    wanted = step.integers(sizes, "shape")
    if isinstance(x, QuantizedConstant):
        return x.to_float().reshape(wanted)
    given = step.tensor(x, "x")
    if not step.attribute("allowzero", 0):
        wanted = [int(given.shape[index]) if size == 0 else size for index, size in enumerate(wanted)]
    return given.reshape(wanted)


def flatten(step: Step, x: Value) -> Tensor:
    """Two axes: what stands before ``axis``, and the rest."""
    given = step.tensor(x, "x")
    axis = step.attribute("axis", 1)
    axis = axis + given.ndim if axis < 0 else axis
    rows = int(np.prod(given.shape[:axis], dtype=np.int64))
    return given.reshape(rows, -1)


def transpose(step: Step, x: Value) -> Value:
    """Axes in another order."""
    if isinstance(x, QuantizedConstant):
        return x.transpose(step.attribute("perm", list(range(x.values.ndim))[::-1]))
    given = step.tensor(x, "x")
    return given.permute(step.attribute("perm", list(range(given.ndim))[::-1]))


def squeeze(step: Step, x: Value, axes: Value = None) -> Tensor:
    """Without axes of length 1."""
    given, listed = step.tensor(x, "x"), _axes(step, axes)
    dims = {axis % given.ndim for axis in listed} or {dim for dim, size in enumerate(given.shape) if size == 1}
    return given.reshape([size for dim, size in enumerate(given.shape) if dim not in dims])


def unsqueeze(step: Step, x: Value, axes: Value = None) -> Tensor:
    """With new axes of length 1."""
    given, listed = step.tensor(x, "x"), _axes(step, axes)
    rank = given.ndim + len(listed)
    for axis in sorted(one % rank for one in listed):
        given = given.unsqueeze(axis)
    return given


def concat(step: Step, *values: Value) -> Tensor:
    """Side by side along an axis.

    LiteRT's converter concatenates integers where one input comes from a DequantizeLinear, and puts the others on that
    input's grid, which the graph does not say: a class token lost 6 dB of a transformer's outputs. An addition that
    changes nothing, and that no pass folds, keeps them apart.
    """
    given = [step.tensor(value, f"x{index}") for index, value in enumerate(values)]
    if step.weight_form == "rounded" and not all(isinstance(value, QuantizedTensor) for value in values):
        given = [_apart(step, one, f"apart{index}") for index, one in enumerate(given)]
    return torch.cat(given, step.attribute("axis"))


def split(step: Step, x: Value, sizes: Value = None) -> tuple[Tensor, ...]:
    """Parts along an axis."""
    given, axis = step.tensor(x, "x"), step.attribute("axis", 0)
    listed = step.attribute("split") or ([] if sizes is None else step.integers(sizes, "split"))
    parts: Any = listed or -(-int(given.shape[axis]) // int(step.attribute("num_outputs", step.outputs)))
    return tuple(torch.split(given, parts, axis))


def slices(  # noqa: PLR0917 (ONNX's inputs, in its order)
    step: Step, x: Value, starts: Value = None, ends: Value = None, axes: Value = None, steps: Value = None
) -> Tensor:
    """A range along some axes.

    Raises:
        BackendError: It goes backwards.
    """
    given = step.tensor(x, "x")
    first = step.attribute("starts") or step.integers(starts, "starts")
    last = step.attribute("ends") or step.integers(ends, "ends")
    dims = step.attribute("axes") or (list(range(len(first))) if axes is None else step.integers(axes, "axes"))
    strides = [1] * len(first) if steps is None else step.integers(steps, "steps")
    for begin, end, dim, stride in zip(first, last, dims, strides, strict=True):
        if stride < 1:
            raise step.refused(f"it goes in steps of {stride}")
        size = int(given.shape[dim])
        low, high, _ = slice(begin, end).indices(size)
        given = torch.ops.aten.slice.Tensor(given, dim, low, max(low, high), stride)
    return given


def gather(step: Step, x: Value, indices: Value) -> Tensor:
    """What stands at ``indices`` along an axis; a constant index selects, a table of rows is an embedding."""
    given, axis = step.tensor(x, "x"), step.attribute("axis", 0)
    size = int(given.shape[axis])
    if is_constant(indices):
        places = step.constant(indices, "indices").astype(np.int64)
        places = np.where(places < 0, places + size, places)
        if places.ndim == 0:
            return given.select(axis, int(places))
        found = given.index_select(axis, step.tensor(places.reshape(-1), "indices"))
        axis %= given.ndim
        return found.reshape([*given.shape[:axis], *places.shape, *given.shape[axis + 1 :]])
    indices = step.tensor(indices, "indices")
    # A negative index counts from the end; kernels for embeddings do not check.
    wrapped = torch.where(indices < 0, indices + size, indices).to(torch.int64)
    if axis == 0 and given.ndim == 2 and given.is_floating_point():
        return F.embedding(wrapped, given)
    axis %= given.ndim
    found = given.index_select(axis, wrapped.reshape(-1))
    return found.reshape([*given.shape[:axis], *wrapped.shape, *given.shape[axis + 1 :]])


def expand(step: Step, x: Value, sizes: Value) -> Tensor:
    """Repeated along axes of length 1, as NumPy broadcasts."""
    given, wanted = step.tensor(x, "x"), step.integers(sizes, "shape")
    return given.expand(np.broadcast_shapes(tuple(given.shape), tuple(wanted)))


def tile(step: Step, x: Value, repeats: Value) -> Tensor:
    """The whole repeated along each axis."""
    return step.tensor(x, "x").repeat(step.integers(repeats, "repeats"))


def pad(step: Step, x: Value, pads: Value = None, value: Value = None, axes: Value = None) -> Tensor:
    """A border around some axes: a constant, or the values there mirrored or repeated."""
    given = step.tensor(x, "x")
    amounts = step.attribute("pads") or step.integers(pads, "pads")
    dims = list(range(given.ndim)) if axes is None else [dim % given.ndim for dim in step.integers(axes, "axes")]
    both = [(0, 0)] * given.ndim
    for index, dim in enumerate(dims):
        both[dim] = amounts[index], amounts[index + len(dims)]
    while both and both[0] == (0, 0):
        both.pop(0)
    flat = [amount for pair in reversed(both) for amount in pair]
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}.get(step.attribute("mode", "constant"))
    if mode is None:
        raise step.refused(f"it pads with {step.attribute('mode')}")
    if not flat:
        return given
    number = step.number(value, "value", step.attribute("value", 0.0))
    return F.pad(given, flat, mode, number if mode == "constant" else None)


def depth_to_space(step: Step, x: Value) -> Tensor:
    """Channels into blocks of pixels."""
    given, block = step.tensor(x, "x"), step.attribute("blocksize")
    if step.attribute("mode", "DCR") == "CRD":
        return F.pixel_shuffle(given, block)
    count, channels, height, width = given.shape
    parts = given.reshape(count, block, block, channels // block**2, height, width).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(count, channels // block**2, height * block, width * block)


def space_to_depth(step: Step, x: Value) -> Tensor:
    """Blocks of pixels into channels."""
    given, block = step.tensor(x, "x"), step.attribute("blocksize")
    count, channels, height, width = given.shape
    parts = given.reshape(count, channels, height // block, block, width // block, block).permute(0, 3, 5, 1, 2, 4)
    return parts.reshape(count, channels * block**2, height // block, width // block)


def _apart(step: Step, x: Tensor, key: str) -> Tensor:
    """X plus numbers that are too small to change a float32: one of them is not 0, so the sum is not folded away."""
    if not x.is_floating_point() or x.ndim == 0 or x.shape[-1] < 2:
        return x
    tiny = np.zeros(int(x.shape[-1]), np.float32)
    tiny[0] = np.finfo(np.float32).tiny
    return x + step.tensor(tiny, key)


def _axes(step: Step, axes: Value) -> list[int]:
    return step.attribute("axes") or ([] if axes is None else step.integers(axes, "axes"))
