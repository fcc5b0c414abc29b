"""Operations on each element."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 (torch's own habit)
from onnx.helper import tensor_dtype_to_np_dtype
from torch import Tensor

from edgeopt.backends.torch_program.values import Step, Value, is_constant, torch_dtype

__all__ = [
    "BINARY",
    "UNARY",
    "cast",
    "clip",
    "elu",
    "gelu",
    "hard_sigmoid",
    "leaky_relu",
    "maximum",
    "minimum",
    "softmax",
]
__all__ += ["binary", "log_softmax", "power", "unary", "where"]

UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "HardSwish": F.hardswish,
    "Log": torch.log,
    "Mish": F.mish,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Round": torch.round,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Softplus": F.softplus,
    "Sqrt": torch.sqrt,
    "Tanh": torch.tanh,
}
BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Add": torch.add,
    "And": torch.logical_and,
    "Equal": torch.eq,
    "Greater": torch.gt,
    "GreaterOrEqual": torch.ge,
    "Less": torch.lt,
    "LessOrEqual": torch.le,
    "Mul": torch.mul,
    "Or": torch.logical_or,
    "Sub": torch.sub,
    "Xor": torch.logical_xor,
}


def unary(step: Step, op: str, x: Value) -> Tensor:
    """One of ``UNARY``."""
    return UNARY[op](step.tensor(x, "x"))


def binary(step: Step, op: str, a: Value, b: Value) -> Tensor:
    """One of ``BINARY``, or a division: of integers towards zero, as ONNX has it."""
    left, right = step.tensor(a, "a"), step.tensor(b, "b")
    if op == "Div":
        return torch.div(left, right, rounding_mode=None if left.is_floating_point() else "trunc")
    return BINARY[op](left, right)


def power(step: Step, a: Value, b: Value) -> Tensor:
    """A to the power of b; a constant exponent is a number, as kernels for squares look for it."""
    left = step.tensor(a, "a")
    if is_constant(b):
        exponent = step.constant(b, "exponent")
        if exponent.size == 1:
            number = float(exponent.reshape(-1)[0])
            return torch.pow(left, int(number) if number.is_integer() else number)
    return torch.pow(left, step.tensor(b, "b")).to(left.dtype)


def clip(step: Step, x: Value, low: Value = None, high: Value = None) -> Tensor:
    """Limited to [low, high]; with both limits it is torch's hardtanh, which kernels absorb."""
    bottom = step.number(low, "min", step.attribute("min", -math.inf))
    top = step.number(high, "max", step.attribute("max", math.inf))
    given = step.tensor(x, "x")
    if given.is_floating_point() and math.isfinite(bottom) and math.isfinite(top):
        return F.hardtanh(given, bottom, top)
    if not given.is_floating_point():
        least = int(bottom) if math.isfinite(bottom) else None
        return torch.clamp(given, least, int(top) if math.isfinite(top) else None)
    if bottom == 0 and math.isinf(top):
        return torch.relu(given)
    return torch.clamp(given, bottom if math.isfinite(bottom) else None, top if math.isfinite(top) else None)


def hard_sigmoid(step: Step, x: Value) -> Tensor:
    """max(0, min(1, alpha · x + beta))."""
    alpha, beta, given = step.attribute("alpha", 0.2), step.attribute("beta", 0.5), step.tensor(x, "x")
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return F.hardsigmoid(given)
    return F.hardtanh(given * alpha + beta, 0.0, 1.0)


def leaky_relu(step: Step, x: Value) -> Tensor:
    """X where positive, alpha · x elsewhere."""
    return F.leaky_relu(step.tensor(x, "x"), step.attribute("alpha", 0.01))


def elu(step: Step, x: Value) -> Tensor:
    """X where positive, alpha · (eˣ − 1) elsewhere."""
    return F.elu(step.tensor(x, "x"), step.attribute("alpha", 1.0))


def gelu(step: Step, x: Value) -> Tensor:
    """The Gaussian error linear unit, exact or with tanh."""
    return F.gelu(step.tensor(x, "x"), approximate=step.attribute("approximate", "none"))


def softmax(step: Step, x: Value) -> Tensor:
    """Softmax along an axis."""
    given = step.tensor(x, "x")
    return torch.softmax(given, _softmax_axis(step, given))


def log_softmax(step: Step, x: Value) -> Tensor:
    """The logarithm of softmax along an axis."""
    given = step.tensor(x, "x")
    return torch.log_softmax(given, _softmax_axis(step, given))


def maximum(step: Step, *values: Value) -> Tensor:
    """The largest of all inputs, element by element."""
    return functools.reduce(torch.maximum, _tensors(step, values))


def minimum(step: Step, *values: Value) -> Tensor:
    """The smallest of all inputs, element by element."""
    return functools.reduce(torch.minimum, _tensors(step, values))


def where(step: Step, condition: Value, a: Value, b: Value) -> Tensor:
    """A where the condition holds, else b."""
    return torch.where(step.tensor(condition, "condition"), step.tensor(a, "a"), step.tensor(b, "b"))


def cast(step: Step, x: Value, like: Value = None) -> Any:
    """Another type; float16 stays exact to float32 and rounds back."""
    if like is not None:
        return step.tensor(x, "x").to(step.tensor(like, "like").dtype)
    return step.tensor(x, "x").to(torch_dtype(tensor_dtype_to_np_dtype(step.attribute("to"))))


def _softmax_axis(step: Step, x: Tensor) -> int:
    if step.opset < 13:  # there it flattens everything from the axis on
        axis = step.attribute("axis", 1) % x.ndim
        if axis != x.ndim - 1:
            raise step.refused("before opset 13 it runs over more than one axis")
        return int(axis)
    return int(step.attribute("axis", -1))


def _tensors(step: Step, values: tuple[Value, ...]) -> list[Tensor]:
    return [step.tensor(value, f"x{index}") for index, value in enumerate(values)]
