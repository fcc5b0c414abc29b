"""Q/DQ between float16 values, which coremltools' reader of torch programs writes with float32 scales.

MIL wants a scale of the type that is quantized, and a DequantizeLinear with a float16 scale gives float16. coremltools 9.0
drops the ``out_dtype`` of ``quantized_decomposed`` ops; here its functions are called with the scale in that type.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

__all__ = ["float16_parameters", "teach_float16"]

# MIL wants these of the type of the data; coremltools' reader gives them as float32 numbers.
_PARAMETERS = ("alpha", "beta", "epsilon")

_QUANTIZE = "quantized_decomposed.quantize_per_tensor"
_DEQUANTIZE = ("quantized_decomposed.dequantize_per_tensor", "quantized_decomposed.dequantize_per_channel")


@functools.cache
def teach_float16() -> None:
    """Put functions in front of coremltools' own, in this process; between float32 values they call those unchanged."""
    from coremltools.converters.mil import register_torch_op  # noqa: PLC0415
    from coremltools.converters.mil.frontend.torch import quantization_ops as given  # noqa: PLC0415
    from coremltools.converters.mil.mil import types  # noqa: PLC0415

    # Kept now: the names of the module stay, the registry's entries are replaced.
    quantize_float32, dequantize_float32 = given.quantize_per_tensor, given.dequantize

    def quantize(context: Any, node: Any) -> None:
        values = given._get_inputs(context, node)  # noqa: SLF001
        if values[0].dtype != types.fp16:
            quantize_float32(context, node)
            return
        data, scale, zero, _, _, kind = values
        given._quantize_general(context, node, data, _half(scale), zero, kind)  # noqa: SLF001

    def dequantize(context: Any, node: Any) -> None:
        if not node.kwinputs or "out_dtype" not in node.kwinputs:  # torch_program says it for float16 only
            dequantize_float32(context, node)
            return
        values = given._get_inputs(context, node)  # noqa: SLF001
        data, scale, zero, *axis = values[:-3]
        low, high = values[-3:-1]
        given._dequantize_general(  # noqa: SLF001
            context, node, data, _half(scale), zero, axis[0] if axis else None, low, high
        )

    register_torch_op(quantize, torch_alias=[_QUANTIZE, _QUANTIZE.replace(".", "::")], override=True)
    names = [*_DEQUANTIZE, *(name.replace(".", "::") for name in _DEQUANTIZE)]
    register_torch_op(dequantize, torch_alias=names, override=True)


@contextmanager
def float16_parameters() -> Iterator[None]:
    """While it is open, numbers such as a clip's limits are written as float16 where the data is.

    Raises:
        ValueError: Such a number is zero or infinite in float16, and is neither.
    """
    from coremltools.converters.mil import Builder  # noqa: PLC0415
    from coremltools.converters.mil.mil import types  # noqa: PLC0415

    given = Builder.__dict__["_add_op"]

    def add(cls: Any, /, op: Any, **arguments: Any) -> Any:
        if getattr(arguments.get("x"), "dtype", None) == types.fp16:
            for name in _PARAMETERS:
                value = arguments.get(name)
                number = getattr(value, "val", value)
                if number is not None and np.ndim(number) == 0 and np.asarray(number).dtype != np.float16:
                    half = np.float16(number)
                    if (half == 0) != (number == 0) or np.isinf(half) != np.isinf(number):
                        raise ValueError(f"its {name} {float(number):.3g} has no float16 form")
                    arguments[name] = half
        return given.__func__(cls, op, **arguments)

    Builder._add_op = classmethod(add)  # noqa: SLF001
    try:
        yield
    finally:
        Builder._add_op = given  # noqa: SLF001


def _half(scale: Any) -> Any:
    """The same scale as a float16 constant: exact, as it was float16 in the graph."""
    from coremltools.converters.mil import Builder  # noqa: PLC0415

    return Builder.const(val=np.float16(scale.val))
