"""QuantizeLinear and DequantizeLinear as ``quantized_decomposed`` ops, which the compilers' partitioners look for."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.ao.quantization.fx import _decomposed  # noqa: F401 (registers torch.ops.quantized_decomposed)

from edgeopt.backends.torch_program.values import QuantizedConstant, QuantizedTensor, Step, Value, torch_dtype

__all__ = ["dequantize_linear", "quantize_linear"]


def quantize_linear(step: Step, x: Value, scale: Value, zero: Value = None) -> Tensor:
    """saturate(round(x × (1/scale)) + zero point), half to even.

    torch and XNNPACK multiply by the reciprocal where ONNX divides: about one value in 10⁶, which lies within a float's
    last bit of the middle between two points, goes to the other point.
    """
    given = step.tensor(x, "x")
    scales, zeros = _grid(step, scale, zero, default=np.uint8)
    kind = torch_dtype(zeros.dtype)
    low, high = torch.iinfo(kind).min, torch.iinfo(kind).max
    ops = torch.ops.quantized_decomposed
    if scales.size == 1:
        made: Tensor = ops.quantize_per_tensor.default(
            given, float(scales.reshape(-1)[0]), int(zeros.reshape(-1)[0]), low, high, kind
        )
        return made
    axis = step.attribute("axis", 1) % given.ndim
    wide = step.tensor(zeros.astype(np.int64), "zero")
    return cast(
        Tensor, ops.quantize_per_channel.default(given, step.tensor(scales, "scale"), wide, axis, low, high, kind)
    )


def dequantize_linear(step: Step, x: Value, scale: Value, zero: Value = None) -> Value:
    """(x − zero point) × scale, which is left to whoever reads it."""
    if isinstance(x, np.ndarray):
        return _constant(step, x, scale, zero)
    given = step.tensor(x, "x")
    scales, zeros = _grid(step, scale, zero, default=np.dtype(str(given.dtype).removeprefix("torch.")))
    return QuantizedTensor(
        values=given,
        scale=scales.reshape(-1),
        zero_point=np.broadcast_to(zeros.reshape(-1), scales.size).astype(np.int64),
        axis=step.attribute("axis", 1) % max(given.ndim, 1),
        half=_float_of(step, scale) == np.float16,
    )


def _constant(step: Step, x: np.ndarray, scale: Value, zero: Value) -> Value:
    scales, zeros = _grid(step, scale, zero, default=x.dtype)
    axis = step.attribute("axis", 1) % max(x.ndim, 1)
    if step.attribute("block_size", 0):
        size = step.attribute("block_size")
        zeros = np.broadcast_to(zeros, scales.shape)
        wide, shift = (np.repeat(one, size, axis)[tuple(map(slice, x.shape))] for one in (scales, zeros))
        whole = (x.astype(np.int32) - shift.astype(np.int32)).astype(np.float32) * wide
        return whole.astype(_float_of(step, scale))
    if x.dtype.name not in ("int8", "uint8"):  # an int32 bias, a weight of 4 bits: no kernel reads those here
        shape = [-1 if dim == axis and scales.size > 1 else 1 for dim in range(x.ndim)]
        difference = x.astype(np.int64) - zeros.reshape(shape).astype(np.int64)
        return (difference * scales.reshape(shape).astype(np.float64)).astype(_float_of(step, scale))
    return QuantizedConstant(
        values=x,
        scale=scales.reshape(-1),
        zero_point=np.broadcast_to(zeros.reshape(-1), scales.size).astype(np.int64),
        axis=axis if scales.size > 1 else None,
        half=_float_of(step, scale) == np.float16,
    )


def _float_of(step: Step, scale: Value) -> np.dtype[Any]:
    """What a dequantization gives: the type of its scale."""
    return step.constant(scale, "scale").dtype


def _grid(step: Step, scale: Value, zero: Value, default: object) -> tuple[np.ndarray, np.ndarray]:
    scales = step.constant(scale, "scale")
    if scales.dtype not in (np.float32, np.float16):
        raise step.refused(f"its scale is {scales.dtype}, not float32 or float16")
    zeros = np.zeros(scales.shape, default) if zero is None else step.constant(zero, "zero point")  # type: ignore[call-overload]
    return scales.astype(np.float32), zeros
