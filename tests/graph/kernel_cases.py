"""One quantized operator each, in every shape for which ONNX Runtime has another kernel, and inputs that saturate it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh

from edgeopt.core.saturation import INT16_MAX, INT16_MIN, kernel_rows

__all__ = ["CASES", "KernelCase", "by_position", "make_case"]


@dataclass(frozen=True)
class KernelCase:
    """A model of one integer operator, its input, and what a CPU must compute.

    Attributes:
        exact: What the operator means, [positions, channels]; ``saturating``: what it gives where products are summed in
            pairs in 16 bits.
        sums: What it sums to in full, in pairs, and in pairs of channels filled up to a multiple of four.
        qdq: The same operator with Q/DQ around it; gives its sums as floats.
    """

    model: onnx.ModelProto
    x: np.ndarray
    weight: np.ndarray
    exact: np.ndarray
    saturating: np.ndarray
    sums: tuple[np.ndarray, np.ndarray, np.ndarray]
    qdq: onnx.ModelProto


# name → (kind, input shape, weight shape, groups, is summed in pairs)
CASES = {
    "pointwise": ("conv", (1, 16, 5, 5), (16, 16, 1, 1), 1, True),
    "direct": ("conv", (1, 8, 6, 6), (24, 8, 3, 3), 1, True),
    "colours": ("conv", (1, 3, 9, 9), (16, 3, 3, 3), 1, True),
    "six channels": ("conv", (1, 6, 7, 7), (20, 6, 3, 3), 1, True),
    "few outputs": ("conv", (1, 8, 6, 6), (5, 8, 3, 3), 1, True),
    "groups": ("conv", (1, 12, 6, 6), (18, 4, 3, 3), 3, True),
    "odd groups": ("conv", (1, 15, 6, 6), (6, 5, 3, 3), 3, True),
    "one channel": ("conv", (1, 1, 8, 8), (16, 1, 3, 3), 1, True),
    "multiplier": ("conv", (1, 8, 6, 6), (16, 1, 3, 3), 8, True),
    "one dimension": ("conv", (1, 6, 20), (8, 6, 5), 1, True),
    "depthwise": ("conv", (1, 32, 6, 6), (32, 1, 3, 3), 32, False),
    "odd depthwise": ("conv", (1, 7, 6, 6), (7, 1, 3, 3), 7, False),
    "matrix": ("matmul", (9, 70), (70, 33), 1, True),
    "vector": ("matmul", (1, 67), (67, 40), 1, True),
    "long vector": ("matmul", (1, 1030), (1030, 17), 1, True),
    "two rows": ("matmul", (2, 48), (48, 16), 1, True),
    "classifier": ("qlinearmatmul", (1, 64), (64, 32), 1, True),
}


def make_case(name: str) -> KernelCase:
    """Build one: bright inputs and large weights, so that pairs overflow upwards and downwards."""
    kind, shape, weight_shape, groups, in_pairs = CASES[name]
    random = np.random.default_rng(len(name))
    x = np.where(random.random(shape) < 0.7, 255, random.integers(0, 256, shape)).astype(np.uint8)
    weight = np.where(random.random(weight_shape) < 0.5, 127, random.integers(-127, 128, weight_shape)).astype(np.int8)
    weight[..., 1::3] = -np.abs(weight[..., 1::3])
    narrow, filled = (_operands(kind, x, weight, groups, lanes) for lanes in (1, 4))
    sums = [_sum(*narrow, in_pairs=pairs) for pairs in (False, in_pairs)]
    every = sums[0], _sum(*narrow, in_pairs=True), _sum(*filled, in_pairs=True)
    qdq = _qdq("Conv" if kind == "conv" else "MatMul", x, weight, groups)
    if kind == "matmul":
        return KernelCase(_matmul(x, weight), x, weight, sums[0], sums[1], every, qdq)
    scale = np.float32(np.abs(sums[0]).max() / 120)
    exact, saturating = (np.clip(np.rint(s / scale) + 128, 0, 255).astype(np.uint8) for s in sums)
    build = _qlinearconv if kind == "conv" else _qlinearmatmul
    return KernelCase(build(x, weight, groups, scale), x, weight, exact, saturating, every, qdq)


def by_position(y: np.ndarray) -> np.ndarray:
    """A convolution's or a product's output as [positions, channels], int64."""
    return (y[0].reshape(y.shape[1], -1).T if y.ndim > 2 else y).astype(np.int64)


def _operands(kind: str, x: np.ndarray, weight: np.ndarray, groups: int, lanes: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows [groups, positions, K] and rows [groups, channels, K], in the order in which kernels read them."""
    if kind != "conv":
        return x[None], kernel_rows(weight, "columns")[None]
    kernel = weight.shape[2:]
    axes = tuple(range(2, x.ndim))
    view = np.lib.stride_tricks.sliding_window_view(x, kernel, axis=axes)[0]  # [C, …positions, …kernel]
    grouped = view.reshape(groups, weight.shape[1], -1, int(np.prod(kernel)))
    wide = np.pad(grouped, [(0, 0), (0, -weight.shape[1] % lanes), (0, 0), (0, 0)])
    windows = wide.transpose(0, 2, 3, 1).reshape(groups, grouped.shape[2], -1)
    return windows, kernel_rows(weight, "conv", lanes).reshape(groups, -1, windows.shape[-1])


def _sum(windows: np.ndarray, rows: np.ndarray, *, in_pairs: bool) -> np.ndarray:
    """[positions, channels]."""
    pad = [(0, 0), (0, 0), (0, windows.shape[-1] % 2)]
    products = np.pad(windows, pad).astype(np.int64)[:, :, None] * np.pad(rows, pad)[:, None]
    pairs = products[..., 0::2] + products[..., 1::2]
    return (
        (pairs.clip(INT16_MIN, INT16_MAX) if in_pairs else pairs)
        .sum(-1)
        .transpose(1, 0, 2)
        .reshape(len(windows[0]), -1)
    )


def _qdq(op: str, x: np.ndarray, weight: np.ndarray, groups: int) -> onnx.ModelProto:
    per = len(weight) if op == "Conv" else weight.shape[1]
    nodes = [
        h.make_node("QuantizeLinear", ["x", "one", "zero"], ["q"]),
        h.make_node("DequantizeLinear", ["q", "one", "zero"], ["d"]),
        h.make_node("DequantizeLinear", ["w", "ones", "zeros"], ["dw"], axis=0 if op == "Conv" else 1),
        h.make_node(op, ["d", "dw"], ["y"], name="layer", **({"group": groups} if op == "Conv" else {})),
    ]
    constants = {"one": np.float32(1), "zero": np.uint8(0), "w": weight}
    constants |= {"ones": np.ones(per, np.float32), "zeros": np.zeros(per, np.int8)}
    return _model(nodes, x, T.FLOAT, constants, T.FLOAT)


def _matmul(x: np.ndarray, weight: np.ndarray) -> onnx.ModelProto:
    node = h.make_node("MatMulInteger", ["x", "w"], ["y"])
    return _model([node], x, T.INT32, {"w": weight})


def _qlinearconv(x: np.ndarray, weight: np.ndarray, groups: int, scale: np.float32) -> onnx.ModelProto:
    node = h.make_node(
        "QLinearConv", ["x", "one", "zero", "w", "ones", "zeros", "scale", "middle"], ["y"], group=groups
    )
    channels = len(weight)
    constants = {"ones": np.ones(channels, np.float32), "zeros": np.zeros(channels, np.int8)}
    return _model([node], x, T.UINT8, {"w": weight, **constants, **_grids(scale)})


def _qlinearmatmul(x: np.ndarray, weight: np.ndarray, groups: int, scale: np.float32) -> onnx.ModelProto:
    node = h.make_node("QLinearMatMul", ["x", "one", "zero", "w", "one", "zero_s8", "scale", "middle"], ["y"])
    return _model([node], x, T.UINT8, {"w": weight, "zero_s8": np.int8(0), **_grids(scale)})


def _grids(scale: np.float32) -> dict[str, np.generic]:
    return {"one": np.float32(1), "zero": np.uint8(0), "scale": scale, "middle": np.uint8(128)}


def _model(
    nodes: list[onnx.NodeProto], x: np.ndarray, made: int, constants: dict[str, np.ndarray], given: int = T.UINT8
) -> onnx.ModelProto:
    read = {name for node in nodes for name in node.input}
    graph = h.make_graph(
        nodes,
        "kernel",
        [h.make_tensor_value_info("x", given, x.shape)],
        [h.make_tensor_value_info("y", made, None)],
        [nh.from_array(np.asarray(value), name) for name, value in constants.items() if name in read],
    )
    return h.make_model(graph, opset_imports=[h.make_opsetid("", 20)], ir_version=10)
