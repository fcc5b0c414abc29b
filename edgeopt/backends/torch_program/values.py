"""What flows between the operations of a program: tensors, NumPy constants, and quantized constants."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from edgeopt.core.errors import BackendError

__all__ = ["QuantizedConstant", "QuantizedTensor", "Step", "Value", "is_constant", "torch_dtype"]


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedConstant:
    """An integer weight whose dequantization is left to the operation that reads it: that one knows the layout it needs.

    Attributes:
        values: int8 or uint8.
        scale: float32, [1] or one per index of ``axis``.
        zero_point: int64, of the same shape.
        axis: Of ``values``; None where there is one scale for all.
        half: Whether it stands for float16 numbers: then the scales are of that type in the graph.
    """

    values: np.ndarray
    scale: np.ndarray
    zero_point: np.ndarray
    axis: int | None
    half: bool = False

    def transpose(self, order: Sequence[int]) -> QuantizedConstant:
        """With its axes in another order."""
        axis = None if self.axis is None else list(order).index(self.axis)
        return replace(self, values=np.ascontiguousarray(self.values.transpose(order)), axis=axis)

    def to_float(self) -> np.ndarray:
        """(values − zero point) × scale: float32, or float16."""
        shape = [1] * self.values.ndim
        if self.axis is not None:
            shape[self.axis] = -1
        shifted = self.values.astype(np.int32) - self.zero_point.reshape(shape).astype(np.int32)
        kind = np.float16 if self.half else np.float32
        made: np.ndarray = (shifted.astype(np.float32) * self.scale.reshape(shape)).astype(kind)
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedTensor:
    """Integers that are computed, and their grid. Every reader dequantizes them for itself.

    The partitioners take an operation together with the DequantizeLinear in front of it; one that several operations
    share ties them all together, and parts the graph elsewhere.

    Attributes:
        values: int8 or uint8.
        scale: float32, [1] or one per index of ``axis``.
        zero_point: int64, likewise.
        half: Whether it stands for float16 numbers.
    """

    values: Tensor
    scale: np.ndarray
    zero_point: np.ndarray
    axis: int
    half: bool = False

    def to_float(self, step: Step, key: str) -> Tensor:
        """(values − zero point) × scale, as an operation of ``step``."""
        kind = self.values.dtype
        low, high = torch.iinfo(kind).min, torch.iinfo(kind).max
        ops = torch.ops.quantized_decomposed
        if self.scale.size == 1:
            scale, zero = float(self.scale.reshape(-1)[0]), int(self.zero_point.reshape(-1)[0])
            made: Tensor = ops.dequantize_per_tensor.default(
                self.values, scale, zero, low, high, kind, **_out_dtype(half=self.half)
            )
            return made
        scales, zeros = step.tensor(self.scale, f"{key}_scale"), step.tensor(self.zero_point, f"{key}_zero")
        return cast(
            Tensor,
            ops.dequantize_per_channel.default(
                self.values, scales, zeros, self.axis, low, high, kind, **_out_dtype(half=self.half)
            ),
        )


Value = Tensor | np.ndarray | QuantizedConstant | QuantizedTensor | None


class Step(nn.Module):
    """One ONNX node as a module, so that what a compiler makes of it can be traced back to the node.

    Its constants become buffers when it is run for the first time; every later run finds them there, as
    ``torch.export`` needs.

    Args:
        op: The function that computes it: (step, inputs) → one value, or a tuple.
        weight: How a quantized weight is written, its values the same: ``integer``, for the compilers to dequantize;
            ``rounded``, float numbers with a quantize and a dequantize behind them; ``float``, where the runtime has no
            int8 kernel for this place.
    """

    def __init__(
        self, node: str, op: Any, attributes: Mapping[str, Any], outputs: int, *, opset: int, weight: str = "integer"
    ) -> None:
        super().__init__()
        self.node, self.attributes, self.outputs, self.opset = node, attributes, outputs, opset
        self.weight_form = weight
        self._op = op

    def forward(self, *inputs: Value) -> Any:
        """Compute the node's outputs."""
        return self._op(self, *inputs)

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute of the node, or its default."""
        return self.attributes.get(name, default)

    def tensor(self, value: Value, key: str) -> Tensor:
        """A value as a tensor; a constant becomes a buffer of this step."""
        if isinstance(value, Tensor):
            return value
        if isinstance(value, QuantizedConstant):
            return _dequantize(self, value, key)
        if isinstance(value, QuantizedTensor):
            return value.to_float(self, key)
        if value is None:
            raise self.refused(f"its input {key!r} is missing")
        name = f"c_{key}"  # a module has names of its own
        if name not in self._buffers:
            self.register_buffer(name, torch.tensor(value))  # a copy: ONNX's arrays are read-only
        return self.get_buffer(name)

    def optional(self, value: Value, key: str) -> Tensor | None:
        """Likewise; None where the input is left out."""
        return None if value is None else self.tensor(value, key)

    def constant(self, value: Value, what: str) -> np.ndarray:
        """A value that must be known now.

        Raises:
            BackendError: It is only known when the program runs.
        """
        if isinstance(value, QuantizedConstant):
            return value.to_float()
        if isinstance(value, np.ndarray):
            return value
        raise self.refused(f"its {what} is not a constant")

    def integers(self, value: Value, what: str) -> list[int]:
        """A constant as a list of ints."""
        return [int(number) for number in self.constant(value, what).reshape(-1)]

    def number(self, value: Value, what: str, default: float) -> float:
        """A constant of one element; the default where it is left out."""
        return default if value is None else float(self.constant(value, what).reshape(-1)[0])

    def refused(self, why: str) -> BackendError:
        """The error that this node cannot be built."""
        return BackendError(
            f"The node {self.node!r} cannot be written as a torch program.",
            got=why,
            fix="Export the model with fixed sizes, or compile for a runtime that reads ONNX (onnxruntime, openvino).",
        )


def _dequantize(step: Step, constant: QuantizedConstant, key: str) -> Tensor:
    """DequantizeLinear of a constant as the compilers recognise it; a plain float constant where the step stays float."""
    if step.weight_form == "float" or math.prod(constant.values.shape) == 0:
        return step.tensor(constant.to_float(), key)
    kind = torch_dtype(constant.values.dtype)
    info = torch.iinfo(kind)
    # Symmetric int8 weights never hold −128, and XNNPACK's kernels rely on it.
    low = -127 if kind == torch.int8 and int(constant.values.min()) >= -127 else info.min
    ops = torch.ops.quantized_decomposed
    rounded = step.weight_form == "rounded"
    out = _out_dtype(half=constant.half)
    values = step.tensor(constant.to_float() if rounded else constant.values, key if rounded else f"{key}_int")
    if constant.axis is None:
        scale, zero = float(constant.scale.reshape(-1)[0]), int(constant.zero_point.reshape(-1)[0])
        if rounded:
            values = ops.quantize_per_tensor.default(values, scale, zero, low, info.max, kind)
        made: Tensor = ops.dequantize_per_tensor.default(values, scale, zero, low, info.max, kind, **out)
        return made
    scales, zeros = step.tensor(constant.scale, f"{key}_scale"), step.tensor(constant.zero_point, f"{key}_zero")
    if rounded:
        values = ops.quantize_per_channel.default(values, scales, zeros, constant.axis, low, info.max, kind)
    return cast(
        Tensor, ops.dequantize_per_channel.default(values, scales, zeros, constant.axis, low, info.max, kind, **out)
    )


def _out_dtype(*, half: bool) -> dict[str, torch.dtype]:
    """What a dequantization is told beside its grid: nothing where it gives float32, as partitioners look for."""
    return {"out_dtype": torch.float16} if half else {}


def is_constant(value: Value) -> bool:
    """Whether it is known when the program is built."""
    return isinstance(value, np.ndarray | QuantizedConstant)


def torch_dtype(kind: Any) -> torch.dtype:
    """NumPy's dtype as torch's.

    Raises:
        BackendError: torch has none.
    """
    found = getattr(torch, str(np.dtype(kind)), None)
    if not isinstance(found, torch.dtype):
        raise BackendError("A value of the graph has a type that torch does not know.", got=np.dtype(kind))
    return found
