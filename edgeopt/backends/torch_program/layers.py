"""Operations with weights: convolutions, matrix products, normalizations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 (torch's own habit)
from torch import Tensor

from edgeopt.backends.torch_program.values import QuantizedConstant, Step, Value, is_constant

__all__ = [
    "batch_norm",
    "conv",
    "conv_transpose",
    "gemm",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "matmul",
    "prelu",
    "split_padding",
]


def conv(step: Step, x: Value, weight: Value, bias: Value = None) -> Tensor:
    """A convolution over one, two or three spatial dimensions."""
    given, kernel = step.tensor(x, "x"), step.tensor(weight, "weight")
    rank = given.ndim - 2
    strides, dilations = step.attribute("strides", [1] * rank), step.attribute("dilations", [1] * rank)
    sizes = [(size - 1) * dilation + 1 for size, dilation in zip(kernel.shape[2:], dilations, strict=True)]
    outside, inside = split_padding(step, given, sizes, strides)
    if any(outside):
        given = F.pad(given, outside)
    run = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    return run(given, kernel, step.optional(bias, "bias"), strides, inside, dilations, step.attribute("group", 1))


def conv_transpose(step: Step, x: Value, weight: Value, bias: Value = None) -> Tensor:
    """A transposed convolution.

    Raises:
        BackendError: Its padding differs between the two ends of an axis, or it names its output's shape.
    """
    given, kernel = step.tensor(x, "x"), step.tensor(weight, "weight")
    rank = given.ndim - 2
    pads = step.attribute("pads", [0] * (2 * rank))
    if pads[:rank] != pads[rank:] or step.attribute("output_shape") or step.attribute("auto_pad", "NOTSET") != "NOTSET":
        raise step.refused("its padding is not the same at both ends")
    run = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
    return run(
        given,
        kernel,
        step.optional(bias, "bias"),
        step.attribute("strides", [1] * rank),
        list(pads[:rank]),
        step.attribute("output_padding", [0] * rank),
        step.attribute("group", 1),
        step.attribute("dilations", [1] * rank),
    )


def gemm(step: Step, a: Value, b: Value, c: Value = None) -> Tensor:
    """Alpha · A B + beta · C; with a constant B it is a linear layer."""
    alpha, beta = step.attribute("alpha", 1.0), step.attribute("beta", 1.0)
    left = step.tensor(a, "a")
    if step.attribute("transA", 0):
        left = left.t()
    if is_constant(b) and alpha == 1.0 and beta == 1.0:
        return _linear(step, left, b, c, turned=bool(step.attribute("transB", 0)))
    right = step.tensor(b, "b")
    product: Tensor = torch.matmul(left, right.t() if step.attribute("transB", 0) else right) * float(alpha)
    return product if c is None else product + step.tensor(c, "c") * float(beta)


def matmul(step: Step, a: Value, b: Value, bias: Value = None) -> Tensor:
    """A B (+ bias); with a constant matrix B it is a linear layer."""
    left = step.tensor(a, "a")
    shape = b.values.shape if isinstance(b, QuantizedConstant) else getattr(b, "shape", ())
    if is_constant(b) and len(shape) == 2:
        return _linear(step, left, b, bias, turned=False)
    product = torch.matmul(left, step.tensor(b, "b"))
    return product if bias is None else product + step.tensor(bias, "bias")


def batch_norm(  # noqa: PLR0917 (ONNX's inputs, in its order)
    step: Step, x: Value, scale: Value, shift: Value, mean: Value, var: Value
) -> Tensor:
    """Batch normalization with recorded statistics."""
    return F.batch_norm(
        step.tensor(x, "x"),
        step.tensor(mean, "mean"),
        step.tensor(var, "var"),
        step.tensor(scale, "scale"),
        step.tensor(shift, "shift"),
        training=False,
        eps=step.attribute("epsilon", 1e-5),
    )


def layer_norm(step: Step, x: Value, scale: Value, shift: Value = None) -> Tensor:
    """Normalization over the last axes.

    Raises:
        BackendError: Its mean or deviation is read too.
    """
    if step.outputs > 1:
        raise step.refused("more than its first output is read")
    given = step.tensor(x, "x")
    axes = list(given.shape[step.attribute("axis", -1) % given.ndim :])
    weight, bias = step.tensor(scale, "scale").reshape(axes), step.optional(shift, "shift")
    bias = None if bias is None else bias.reshape(axes)
    return F.layer_norm(given, axes, weight, bias, step.attribute("epsilon", 1e-5))


def instance_norm(step: Step, x: Value, scale: Value, shift: Value) -> Tensor:
    """Normalization of each channel of each sample."""
    weight, bias = step.tensor(scale, "scale"), step.tensor(shift, "shift")
    return F.instance_norm(step.tensor(x, "x"), weight=weight, bias=bias, eps=step.attribute("epsilon", 1e-5))


def group_norm(step: Step, x: Value, scale: Value, shift: Value) -> Tensor:
    """Normalization of groups of channels; scale and shift per channel, as from opset 21 on.

    Raises:
        BackendError: They are per group (opsets below 21).
    """
    given, groups = step.tensor(x, "x"), step.attribute("num_groups")
    weight, bias = step.tensor(scale, "scale"), step.tensor(shift, "shift")
    if len(weight) != given.shape[1]:
        raise step.refused("its scale has one value per group")
    return F.group_norm(given, groups, weight, bias, step.attribute("epsilon", 1e-5))


def prelu(step: Step, x: Value, slope: Value) -> Tensor:
    """X where positive, slope · x elsewhere; the slope is one number, or one per channel."""
    given, slopes = step.tensor(x, "x"), slope
    if isinstance(slope, np.ndarray):
        channels = [size for size in slope.shape if size > 1]
        place = [dim for dim, size in zip(range(given.ndim)[::-1], slope.shape[::-1], strict=False) if size > 1]
        if channels and (len(channels) > 1 or place != [1]):
            raise step.refused("its slope is not one per channel")
        slopes = slope.reshape(-1)
    return F.prelu(given, step.tensor(slopes, "slope"))


def split_padding(step: Step, x: Tensor, sizes: Sequence[int], strides: Sequence[int]) -> tuple[list[int], list[int]]:
    """What is padded in front, as ``F.pad`` takes it, and what the operation pads itself, the same at both ends.

    Args:
        sizes: How far a window reaches along each spatial axis, its dilation counted.
    """
    rank = x.ndim - 2
    pads = list(step.attribute("pads", [0] * (2 * rank)))
    mode = step.attribute("auto_pad", "NOTSET")
    if mode.startswith("SAME"):
        pads = [0] * (2 * rank)
        for axis, (size, stride) in enumerate(zip(sizes, strides, strict=True)):
            length = int(x.shape[2 + axis])
            missing = max((-(-length // stride) - 1) * stride + size - length, 0)
            small, large = missing // 2, missing - missing // 2
            pads[axis], pads[axis + rank] = (small, large) if mode == "SAME_UPPER" else (large, small)
    begins, ends = pads[:rank], pads[rank:]
    if begins == ends:
        return [], begins
    flat = [pad for begin, end in zip(begins[::-1], ends[::-1], strict=True) for pad in (begin, end)]
    return flat, [0] * rank


def _linear(step: Step, x: Tensor, weight: Value, bias: Value, *, turned: bool) -> Tensor:
    """X Wᵀ + bias. ``turned``: the constant is stored as W already."""
    if isinstance(weight, QuantizedConstant):
        stored: Value = weight if turned else weight.transpose((1, 0))
    else:
        matrix = step.constant(weight, "weight")
        stored = matrix if turned else np.ascontiguousarray(matrix.T)
    given = step.optional(bias, "bias")
    kernel = step.tensor(stored, "weight")
    if given is None or given.shape == kernel.shape[:1]:
        return F.linear(x, kernel, given)
    return F.linear(x, kernel) + given
