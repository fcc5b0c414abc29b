"""One small graph per operator that edgeopt writes in torch, with inputs that reach its edges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import helper

__all__ = ["CASES", "Case"]

F32, I64, BOOL = np.float32, np.int64, np.bool_


@dataclass(frozen=True)
class Case:
    """A node with its fed inputs [shape], its constants and its attributes."""

    op: str
    fed: tuple[tuple[int, ...], ...]
    constants: tuple[Any, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    opset: int = 20
    make: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray] | None = None

    def inputs(self) -> list[np.ndarray]:
        rng = np.random.default_rng(1)
        make = self.make or (lambda r, shape: r.normal(size=shape).astype(F32))
        return [make(rng, shape) for shape in self.fed]


def _positive(rng, shape):
    return rng.uniform(0.1, 3, shape).astype(F32)


def _bool(rng, shape):
    return rng.integers(0, 2, shape).astype(BOOL)


def _ints(rng, shape):
    return rng.integers(0, 4, shape).astype(I64)


def _f(*shape, seed=2):
    return np.random.default_rng(seed).normal(size=shape).astype(F32)


def _i(*values):
    return np.array(values, I64)


IMAGE = (2, 4, 6, 6)
_PLAIN = ("Abs", "Ceil", "Cos", "Erf", "Exp", "Floor", "HardSwish", "Mish", "Neg", "Relu", "Round", "Sigmoid", "Sign")
_PLAIN += ("Sin", "Softplus", "Tanh", "Elu", "LeakyRelu", "Gelu", "HardSigmoid", "Identity", "Softmax", "LogSoftmax")
CASES: list[Case] = [
    *(Case(op, ((3, 5),)) for op in _PLAIN),
    *(Case(op, ((3, 5),), make=_positive) for op in ("Log", "Sqrt", "Reciprocal")),
    *(Case(op, ((3, 5), (5,))) for op in ("Add", "Sub", "Mul", "Div", "Max", "Min", "Greater", "Less")),
    *(Case(op, ((3, 5), (5,)), make=_ints) for op in ("Equal", "GreaterOrEqual", "LessOrEqual")),
    Case("Div", ((3, 5),), (np.array([-2], I64),), make=_ints),
    *(Case(op, ((3, 5), (3, 5)), make=_bool) for op in ("And", "Or", "Xor")),
    Case("Not", ((3, 5),), make=_bool),
    Case("Max", ((3, 5), (5,), (1,))),
    Case("Gelu", ((3, 5),), attributes={"approximate": "tanh"}),
    Case("HardSigmoid", ((3, 5),), attributes={"alpha": 1 / 6, "beta": 0.5}),
    Case("Softmax", ((3, 5, 2),), attributes={"axis": 1}),
    Case("Pow", ((3, 5),), (F32(2),)),
    Case("Pow", ((3, 5), (5,)), make=_positive),
    Case("Clip", ((3, 5),), (F32(-0.5), F32(0.7))),
    Case("Clip", ((3, 5),), (F32(0),)),
    Case("Cast", ((3, 5),), attributes={"to": 7}),
    Case("Cast", ((3, 5),), attributes={"to": 10}),
    Case("CastLike", ((3, 5),), (np.zeros(1, np.int32),)),
    Case("Where", ((3, 5), (3, 5), (3, 5)), make=_bool),
    Case("PRelu", (IMAGE,), (_f(4, 1, 1),)),
    Case("PRelu", ((3, 5),), (_f(1),)),
    Case("Dropout", ((3, 5),)),
    Case("Gemm", ((3, 5),), (_f(5, 4), _f(4))),
    Case("Gemm", ((3, 5),), (_f(4, 5), _f(4)), {"transB": 1}),
    Case("Gemm", ((5, 3),), (_f(4, 5), _f(3, 1)), {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0}),
    Case("Gemm", ((3, 5), (5, 4))),
    Case("MatMul", ((2, 3, 5),), (_f(5, 4),)),
    Case("MatMul", ((2, 3, 5), (2, 5, 4))),
    Case("Conv", (IMAGE,), (_f(8, 4, 3, 3), _f(8)), {"pads": [1, 1, 1, 1]}),
    Case("Conv", (IMAGE,), (_f(8, 4, 3, 3),), {"pads": [0, 1, 1, 0], "strides": [2, 2]}),
    Case("Conv", (IMAGE,), (_f(8, 4, 3, 3),), {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    Case("Conv", (IMAGE,), (_f(8, 1, 3, 3),), {"group": 4, "dilations": [2, 2], "pads": [2, 2, 2, 2]}),
    Case("Conv", ((2, 4, 9),), (_f(8, 4, 3), _f(8)), {"pads": [1, 1]}),
    Case("ConvTranspose", (IMAGE,), (_f(4, 3, 2, 2), _f(3)), {"strides": [2, 2]}),
    Case("ConvTranspose", (IMAGE,), (_f(4, 3, 3, 3),), {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}),
    Case("BatchNormalization", (IMAGE,), (_f(4), _f(4), _f(4), np.abs(_f(4)) + F32(0.5))),
    Case("LayerNormalization", ((2, 3, 5),), (_f(5), _f(5)), {"axis": -1}),
    Case("InstanceNormalization", (IMAGE,), (_f(4), _f(4))),
    Case("GroupNormalization", (IMAGE,), (_f(4), _f(4)), {"num_groups": 2}, opset=21),
    Case("MaxPool", (IMAGE,), (), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    Case("MaxPool", (IMAGE,), (), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [0, 0, 1, 1]}),
    Case("MaxPool", (IMAGE,), (), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    Case("MaxPool", ((2, 4, 9),), (), {"kernel_shape": [2], "strides": [2]}),
    Case("AveragePool", (IMAGE,), (), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    Case("AveragePool", (IMAGE,), (), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    Case("AveragePool", ((2, 4, 9),), (), {"kernel_shape": [2], "strides": [2]}),
    Case("GlobalAveragePool", (IMAGE,)),
    Case("GlobalAveragePool", ((2, 4, 9),)),
    Case("GlobalMaxPool", (IMAGE,)),
    *(Case(op, (IMAGE,), (_i(2, 3),), {"keepdims": 0}) for op in ("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin")),
    Case("ReduceMean", ((2, 4, 9),), (_i(-1),), {"keepdims": 0}),
    Case("ReduceMean", (IMAGE,), (_i(1),)),
    Case("ReduceMean", (IMAGE,)),
    Case("ReduceL2", (IMAGE,), (_i(1),)),
    Case("ArgMax", ((3, 5),), (), {"axis": 1}),
    Case("Resize", (IMAGE,), (None, F32([1, 1, 2, 2])), {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}),
    Case("Resize", (IMAGE,), (None, None, _i(2, 4, 9, 12)), {"mode": "linear"}),
    Case("Resize", (IMAGE,), (None, None, _i(2, 4, 9, 12)), {"mode": "linear", "coordinate_transformation_mode": "align_corners"}),
    Case("Reshape", (IMAGE,), (_i(0, -1),)),
    Case("Flatten", (IMAGE,), (), {"axis": 2}),
    Case("Flatten", (IMAGE,), (), {"axis": 0}),
    Case("Transpose", (IMAGE,), (), {"perm": [0, 2, 3, 1]}),
    Case("Transpose", ((3, 5),)),
    Case("Squeeze", ((2, 1, 3, 1),), (_i(1),)),
    Case("Squeeze", ((2, 1, 3, 1),)),
    Case("Unsqueeze", ((2, 3),), (_i(0, -1),)),
    Case("Concat", ((2, 3), (2, 4)), (), {"axis": 1}),
    Case("Split", ((2, 7),), (_i(3, 4),), {"axis": 1}),
    Case("Split", ((2, 7),), (), {"axis": 1, "num_outputs": 2}),
    Case("Slice", (IMAGE,), (_i(1, -3), _i(4, 100), _i(1, 3), _i(2, 1))),
    Case("Slice", ((3, 5),), (_i(3), _i(1), _i(1))),
    Case("Gather", ((3, 5),), (np.array(-1, I64),), {"axis": 1}),
    Case("Gather", ((3, 5),), (np.array([[0, -1], [2, 2]], I64),), {"axis": 1}),
    Case("Expand", ((3, 1),), (_i(2, 1, 4),)),
    Case("Tile", ((3, 2),), (_i(2, 3),)),
    Case("Pad", (IMAGE,), (_i(0, 0, 1, 2, 0, 0, 0, 1), F32(0.5))),
    Case("Pad", (IMAGE,), (_i(0, 0, 1, 2, 0, 0, 0, 1),), {"mode": "reflect"}),
    Case("DepthToSpace", (IMAGE,), (), {"blocksize": 2}),
    Case("DepthToSpace", (IMAGE,), (), {"blocksize": 2, "mode": "CRD"}),
    Case("SpaceToDepth", (IMAGE,), (), {"blocksize": 2}),
    Case("Shape", (IMAGE,)),
    Case("QuantizeLinear", ((3, 5),), (F32(0.03), np.int8(-7))),
    Case("QuantizeLinear", ((3, 5),), (F32(0.03), np.uint8(120))),
    Case("QuantizeLinear", (IMAGE,), (F32([0.01, 0.02, 0.03, 0.04]), np.zeros(4, np.int8)), {"axis": 1}),
    Case("DequantizeLinear", ((3, 5),), (F32(0.03), np.int8(-7)), make=lambda r, s: r.integers(-128, 128, s).astype(np.int8)),
    Case("DequantizeLinear", (IMAGE,), (F32([0.01, 0.02, 0.03, 0.04]), np.ones(4, np.int8)), {"axis": 1}, make=lambda r, s: r.integers(-128, 128, s).astype(np.int8)),
]  # fmt: skip


def graph_of(case: Case):
    """The model of a case, its inputs and its constants as initializers."""
    arrays = case.inputs()
    if case.op == "Where":
        arrays[1:] = [_f(3, 5, seed=3), _f(3, 5, seed=4)]
    names, initializers, inputs = [], [], []
    for index, array in enumerate(arrays):
        names.append(f"x{index}")
        inputs.append(
            helper.make_tensor_value_info(f"x{index}", helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        )
    for index, constant in enumerate(case.constants):
        names.append("" if constant is None else f"c{index}")
        if constant is not None:
            initializers.append(helper.make_tensor(f"c{index}", helper.np_dtype_to_tensor_dtype(np.asarray(constant).dtype), np.asarray(constant).shape, np.asarray(constant).tobytes(), raw=True))  # fmt: skip
    count = 2 if case.op == "Split" else 1
    outputs = [f"y{index}" for index in range(count)]
    node = helper.make_node(case.op, names, outputs, "the node", **case.attributes)
    values = [helper.make_tensor_value_info(name, 1, None) for name in outputs]
    graph = helper.make_graph([node], "case", inputs, values, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", case.opset)], ir_version=10), arrays
