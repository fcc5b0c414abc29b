"""Single operations as ONNX files, to find out what a machine can do at most."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["write_conv", "write_product"]

_OPSET, _IR = 20, 9


def write_product(path: Path, size: int, *, int8: bool, seed: int = 0) -> None:
    """One matrix product, [size, size] by a constant [size, size].

    Args:
        int8: uint8 by int8 with int32 sums (``MatMulInteger``), which is what CPU kernels multiply in; else float32.
    """
    rng = np.random.default_rng(seed)
    if int8:
        weight = rng.integers(-63, 64, (size, size)).astype("int8")
        _write(
            path,
            "MatMulInteger",
            attributes={},
            source=("uint8", [size, size]),
            weight=weight,
            result=("int32", [size, size]),
        )
    else:
        weight = rng.standard_normal((size, size)).astype("float32")
        square = ("float32", [size, size])
        _write(path, "MatMul", attributes={}, source=square, weight=weight, result=square)


def write_conv(path: Path, channels_in: int, channels_out: int, size: int, *, seed: int = 0) -> None:
    """One float32 convolution, 3 by 3, stride 1, on [1, channels_in, size, size]; its output has the same size."""
    weight = np.random.default_rng(seed).standard_normal((channels_out, channels_in, 3, 3)).astype("float32")
    _write(
        path,
        "Conv",
        attributes={"pads": [1, 1, 1, 1]},
        source=("float32", [1, channels_in, size, size]),
        weight=weight,
        result=("float32", [1, channels_out, size, size]),
    )


def _write(
    path: Path,
    op: str,
    *,
    attributes: dict[str, Any],
    source: tuple[str, list[int]],
    weight: np.ndarray,
    result: tuple[str, list[int]],
) -> None:
    import onnx  # noqa: PLC0415
    from onnx import helper, numpy_helper  # noqa: PLC0415

    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)
        for name, (dtype, shape) in (("x", source), ("y", result))
    ]
    graph = helper.make_graph(
        [helper.make_node(op, ["x", "w"], ["y"], name=op.lower(), **attributes)],
        "probe",
        [values[0]],
        [values[1]],
        [numpy_helper.from_array(weight, "w")],
    )
    opset = helper.make_opsetid("", _OPSET)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=_IR), path)
