"""Which function builds which ONNX operator. Names only, so that a graph can be checked without importing torch."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterable
from typing import Any

__all__ = ["CONSTANT_OPS", "OPERATORS", "builder", "unknown"]

_UNARY = (
    *("Abs", "Ceil", "Cos", "Erf", "Exp", "Floor", "HardSwish", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu"),
    *("Round", "Sigmoid", "Sign", "Sin", "Softplus", "Sqrt", "Tanh"),
)
_BINARY = (
    *("Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Mul", "Or", "Sub", "Xor"),
)
OPERATORS: dict[str, str] = {
    **dict.fromkeys(_UNARY, "pointwise:unary"),
    **dict.fromkeys(_BINARY, "pointwise:binary"),
    "ArgMax": "pools:argmax",
    "AveragePool": "pools:average_pool",
    "BatchNormalization": "layers:batch_norm",
    "Cast": "pointwise:cast",
    "CastLike": "pointwise:cast",
    "Clip": "pointwise:clip",
    "Concat": "shapes:concat",
    "Conv": "layers:conv",
    "ConvTranspose": "layers:conv_transpose",
    "DepthToSpace": "shapes:depth_to_space",
    "DequantizeLinear": "points:dequantize_linear",
    "Dropout": "shapes:identity",
    "Elu": "pointwise:elu",
    "Expand": "shapes:expand",
    "Flatten": "shapes:flatten",
    "Gather": "shapes:gather",
    "Gelu": "pointwise:gelu",
    "Gemm": "layers:gemm",
    "GlobalAveragePool": "pools:global_average_pool",
    "GlobalMaxPool": "pools:global_max_pool",
    "GroupNormalization": "layers:group_norm",
    "HardSigmoid": "pointwise:hard_sigmoid",
    "Identity": "shapes:identity",
    "InstanceNormalization": "layers:instance_norm",
    "LayerNormalization": "layers:layer_norm",
    "LeakyRelu": "pointwise:leaky_relu",
    "LogSoftmax": "pointwise:log_softmax",
    "MatMul": "layers:matmul",
    "Max": "pointwise:maximum",
    "MaxPool": "pools:max_pool",
    "Min": "pointwise:minimum",
    "PRelu": "layers:prelu",
    "Pad": "shapes:pad",
    "Pow": "pointwise:power",
    "QuantizeLinear": "points:quantize_linear",
    "ReduceL2": "pools:reduce_l2",
    "ReduceMax": "pools:reduce_max",
    "ReduceMean": "pools:reduce_mean",
    "ReduceMin": "pools:reduce_min",
    "ReduceSum": "pools:reduce_sum",
    "Reshape": "shapes:reshape",
    "Resize": "pools:resize",
    "Shape": "shapes:shape",
    "Slice": "shapes:slices",
    "Softmax": "pointwise:softmax",
    "SpaceToDepth": "shapes:space_to_depth",
    "Split": "shapes:split",
    "Squeeze": "shapes:squeeze",
    "Tile": "shapes:tile",
    "Transpose": "shapes:transpose",
    "Unsqueeze": "shapes:unsqueeze",
    "Where": "pointwise:where",
}
"""Operator → ``module:function``. What has only constant inputs is computed by ONNX's reference evaluator, whatever it is."""
CONSTANT_OPS = frozenset({"Constant", "ConstantOfShape", "Range", "Size"})
"""Theirs are constant wherever sizes are fixed."""


def builder(op: str) -> Any:
    """The function (step, inputs) → value that builds an operator of the table."""
    module, _, name = OPERATORS[op].partition(":")
    found = getattr(importlib.import_module(f"edgeopt.backends.torch_program.{module}"), name)
    if op in _UNARY or op in _BINARY:
        return functools.partial(_with_op, found, op)
    return found


def unknown(ops: Iterable[str]) -> list[str]:
    """Those of ``ops`` that no function builds, sorted."""
    return sorted(set(ops) - OPERATORS.keys() - CONSTANT_OPS)


def _with_op(function: Any, op: str, step: Any, *inputs: Any) -> Any:
    return function(step, op, *inputs)
