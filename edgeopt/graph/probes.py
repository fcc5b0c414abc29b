"""Single operations as ONNX files, to find out what a machine can do at most."""

from __future__ import annotations

from pathlib import Path

import numpy as np

__all__ = ["write_conv"]

_OPSET, _IR = 20, 9


def write_conv(path: Path, channels_in: int, channels_out: int, size: int, *, seed: int = 0) -> None:
    """One float32 convolution, 3 by 3, stride 1, on [1, channels_in, size, size]; its output has the same size."""
    import onnx  # noqa: PLC0415
    from onnx import TensorProto, helper, numpy_helper  # noqa: PLC0415

    weight = np.random.default_rng(seed).standard_normal((channels_out, channels_in, 3, 3)).astype("float32")
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], "conv", pads=[1, 1, 1, 1])],
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, channels_in, size, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, channels_out, size, size])],
        [numpy_helper.from_array(weight, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR), path)
