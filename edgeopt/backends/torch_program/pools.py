"""Operations that gather a neighbourhood or an axis: pools, means, reductions, resizing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own habit)
from torch import Tensor

from edgeopt.backends.torch_program.layers import split_padding
from edgeopt.backends.torch_program.values import Step, Value

__all__ = [
    "argmax",
    "average_pool",
    "global_average_pool",
    "global_max_pool",
    "max_pool",
    "reduce_l2",
    "reduce_max",
    "reduce_mean",
    "reduce_min",
    "reduce_sum",
    "resize",
]


def max_pool(step: Step, x: Value) -> Tensor:
    """The largest value of each window.

    Raises:
        BackendError: Its indices are read too.
    """
    if step.outputs > 1:
        raise step.refused("its indices are read")
    given, size, stride, outside, inside = _windows(step, x)
    if any(outside):
        given = F.pad(given, outside, value=-math.inf)
    dilations, ceil = list(step.attribute("dilations", [1] * len(size))), bool(step.attribute("ceil_mode", 0))
    if given.ndim == 3:  # in two dimensions, as the partitioners know it
        flat = given.reshape(*given.shape[:2], 1, given.shape[2])
        made = F.max_pool2d(flat, [1, *size], [1, *stride], [0, *inside], [1, *dilations], ceil)
        return made.reshape(*given.shape[:2], -1)
    run: Any = (F.max_pool2d, F.max_pool3d)[given.ndim - 4]
    found: Tensor = run(given, size, stride, inside, dilations, ceil)
    return found


def average_pool(step: Step, x: Value) -> Tensor:
    """The mean of each window.

    Raises:
        BackendError: Padding that is not counted differs between the two ends of an axis.
    """
    given, size, stride, outside, inside = _windows(step, x)
    counted, ceil = bool(step.attribute("count_include_pad", 0)), bool(step.attribute("ceil_mode", 0))
    if any(outside):
        if not counted:
            raise step.refused("its padding is not counted, and not the same at both ends")
        given = F.pad(given, outside)
    if any(dilation != 1 for dilation in step.attribute("dilations", [])):
        raise step.refused("it is dilated")
    run: Any = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[given.ndim - 3]
    made: Tensor = run(given, size, stride, inside, ceil, counted)
    return made


def global_average_pool(step: Step, x: Value) -> Tensor:
    """The mean over all spatial axes, which stay as axes of length 1."""
    given = step.tensor(x, "x")
    return _mean(given, list(range(2, given.ndim)), keep=True)


def global_max_pool(step: Step, x: Value) -> Tensor:
    """The maximum over all spatial axes, which stay as axes of length 1."""
    given = step.tensor(x, "x")
    return torch.amax(given, list(range(2, given.ndim)), keepdim=True)


def reduce_mean(step: Step, x: Value, axes: Value = None) -> Tensor:
    """The mean over some axes."""
    return _reduce(step, x, axes, _mean)


def reduce_sum(step: Step, x: Value, axes: Value = None) -> Tensor:
    """The sum over some axes."""
    return _reduce(step, x, axes, lambda given, dims, keep: torch.sum(given, dims, keepdim=keep))


def reduce_max(step: Step, x: Value, axes: Value = None) -> Tensor:
    """The maximum over some axes."""
    return _reduce(step, x, axes, lambda given, dims, keep: torch.amax(given, dims, keepdim=keep))


def reduce_min(step: Step, x: Value, axes: Value = None) -> Tensor:
    """The minimum over some axes."""
    return _reduce(step, x, axes, lambda given, dims, keep: torch.amin(given, dims, keepdim=keep))


def reduce_l2(step: Step, x: Value, axes: Value = None) -> Tensor:
    """The root of the sum of squares over some axes."""
    return _reduce(step, x, axes, lambda given, dims, keep: torch.sqrt(torch.sum(given * given, dims, keepdim=keep)))


def argmax(step: Step, x: Value) -> Tensor:
    """Where along an axis the largest value stands, the first of equals."""
    if step.attribute("select_last_index", 0):
        raise step.refused("it asks for the last of equal values")
    return torch.argmax(step.tensor(x, "x"), step.attribute("axis", 0), bool(step.attribute("keepdims", 1)))


def resize(step: Step, x: Value, roi: Value = None, scales: Value = None, sizes: Value = None) -> Tensor:  # noqa: ARG001
    """Nearest or bilinear resizing of the spatial axes.

    Raises:
        BackendError: A mode or a coordinate rule that torch's ``interpolate`` does not have.
    """
    given = step.tensor(x, "x")
    if sizes is not None:
        shape = step.integers(sizes, "sizes")
    else:
        factors = step.constant(scales, "scales").reshape(-1)
        shape = [math.floor(size * float(factor)) for size, factor in zip(given.shape, factors, strict=True)]
    if len(shape) != given.ndim or shape[:2] != list(given.shape[:2]):
        raise step.refused("it resizes more than the spatial axes")
    mode, rule = step.attribute("mode", "nearest"), step.attribute("coordinate_transformation_mode", "half_pixel")
    if mode == "nearest":
        floor = step.attribute("nearest_mode", "round_prefer_floor")
        whole = all(new % old == 0 for new, old in zip(shape[2:], given.shape[2:], strict=True))
        # With whole factors every rule but one picks the same neighbour.
        if (rule, floor) != ("asymmetric", "floor") and not (whole and rule in ("half_pixel", "half_pixel_symmetric")):
            raise step.refused(f"nearest with {rule}, {floor}")
        return F.interpolate(given, shape[2:], mode="nearest")
    corners = {"align_corners": True, "half_pixel": False, "pytorch_half_pixel": False}.get(rule)
    if mode != "linear" or corners is None or given.ndim != 4 or step.attribute("antialias", 0):
        raise step.refused(f"{mode} with {rule}")
    return F.interpolate(given, shape[2:], mode="bilinear", align_corners=corners)


def _reduce(step: Step, x: Value, axes: Value, run: Callable[[Tensor, list[int], bool], Tensor]) -> Tensor:
    given = step.tensor(x, "x")
    listed = step.attribute("axes") or ([] if axes is None else step.integers(axes, "axes"))
    if not listed and step.attribute("noop_with_empty_axes", 0):
        return given
    dims = sorted({axis % given.ndim for axis in listed or range(given.ndim)})
    return run(given, dims, bool(step.attribute("keepdims", 1)))


def _mean(x: Tensor, dims: list[int], keep: bool) -> Tensor:
    """The mean, written as XNNPACK's partitioner takes it: over the last two of four axes, which stay."""
    if x.ndim == 3 and dims == [2]:
        made = torch.mean(x.reshape(*x.shape[:2], 1, x.shape[2]), [2, 3], keepdim=True).reshape(*x.shape[:2], 1)
    else:
        made = torch.mean(x, dims, keepdim=True)
    return made if keep else made.reshape([size for dim, size in enumerate(x.shape) if dim not in dims])


def _windows(step: Step, x: Value) -> tuple[Tensor, list[int], list[int], list[int], list[int]]:
    given, size = step.tensor(x, "x"), list(step.attribute("kernel_shape"))
    stride = list(step.attribute("strides", [1] * len(size)))
    dilations = step.attribute("dilations", [1] * len(size))
    reach = [(one - 1) * dilation + 1 for one, dilation in zip(size, dilations, strict=True)]
    outside, inside = split_padding(step, given, reach, stride)
    return given, size, stride, outside, inside
