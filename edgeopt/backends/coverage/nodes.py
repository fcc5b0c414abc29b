"""The multiplications of an ONNX graph: on which grids their operands lie, and what stands behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from edgeopt.backends.graphs import Graph

if TYPE_CHECKING:
    import onnx

__all__ = ["Behind", "Grid", "Multiplication", "multiplications"]

_COUNTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "MatMulNBits", "GRU", "LSTM", "RNN"})
_WRITTEN_INT8 = frozenset(
    {"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "MatMulIntegerToFloat", "QGemm"}
)
# They move values and leave them as they are: a grid on one side is a grid on the other.
_MOVES = frozenset({"Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "MaxPool", "Identity"})
_DEEP = 6  # operators that are followed behind a multiplication


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """What a QuantizeLinear or DequantizeLinear puts values on.

    Attributes:
        dtype: ``uint8``, ``int8``, ``int16``, …
        zero_points: The different ones; empty where the file keeps them elsewhere.
        axis: Of a grid per channel; None where one scale serves the whole tensor.
        highest: Largest value on a grid per tensor; None where it is not known.
    """

    dtype: str
    zero_points: tuple[int, ...]
    axis: int | None
    highest: float | None = None

    @property
    def has_8_bits(self) -> bool:
        """Whether its values are of a type that int8 kernels read."""
        return self.dtype in ("int8", "uint8")

    @property
    def starts_at_zero(self) -> bool:
        """Whether no point of the grid lies below zero."""
        lowest = {"uint8": 0, "int8": -128}.get(self.dtype)
        return self.zero_points == (lowest,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Behind:
    """What stands behind a multiplication.

    Attributes:
        end: ``quantize``: one QuantizeLinear; ``output``: the graph's output; ``readers``: several readers; ``none``:
            an operator with no QuantizeLinear further on.
        between: Operators on the way, each with its node's attributes left out: ``("Relu",)``.
        readers: The operators that read the value where it has several readers.
        grid: Of the QuantizeLinear.
        clip: Bounds of a Clip on the way.
    """

    end: Literal["quantize", "output", "readers", "none"]
    between: tuple[str, ...] = ()
    readers: tuple[str, ...] = ()
    grid: Grid | None = None
    clip: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Multiplication:
    """A node that multiplies.

    Attributes:
        node: Its name; its first output's where it has none.
        names: What a runtime may call it: its name and its outputs.
        reached: Names of the values that come of its output alone, the nearest first.
        followers: Names of the nodes that make these.
        data: Grid of the first operand; None where that is float.
        weight: Grid of the second.
        weight_is_constant: Whether the second is stored in the file.
        bias: ``int32``: behind a DequantizeLinear; ``float``; ``none``.
        packed: It multiplies a float by a weight that is stored in integers.
        attributes: The numbers among its attributes.
    """

    node: str
    op: str
    names: frozenset[str]
    reached: tuple[str, ...]
    followers: tuple[str, ...]
    data: Grid | None
    weight: Grid | None
    weight_is_constant: bool
    bias: Literal["none", "float", "int32"]
    packed: bool
    behind: Behind
    attributes: Mapping[str, float]

    @property
    def planned(self) -> bool:
        """Whether the graph asks for int8: both operands lie on a grid, or the operator itself is int8."""
        return self.op in _WRITTEN_INT8 or (self.data is not None and self.weight is not None)


def multiplications(graph: Graph) -> tuple[Multiplication, ...]:
    """Every convolution, matrix product and recurrent cell of the graph, in its order."""
    reader = _Reader(graph.model)
    packed = set(graph.packed)
    return tuple(
        reader.read(node, packed)
        for node in graph.model.graph.node
        if node.op_type in _COUNTED or node.op_type in _WRITTEN_INT8
    )


class _Reader:
    """A graph with its makers, readers and constants at hand."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.makers = {name: node for node in graph.node for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
                self.constants[node.output[0]] = node.attribute[0].t
        self.outputs = {value.name for value in graph.output}

    def read(self, node: onnx.NodeProto, packed: set[str]) -> Multiplication:
        name = node.name or node.output[0]
        reached = self.reached(node.output[0])
        pair = [self.grid_of(source) for source in (*node.input[:2], "", "")[:2]]
        return Multiplication(
            node=name,
            op=node.op_type,
            names=frozenset({name, *node.output}),
            reached=tuple(reached),
            followers=tuple(self.makers[value].name for value in reached[1:]),
            data=pair[0],
            weight=pair[1],
            weight_is_constant=len(node.input) > 1 and self.is_constant(node.input[1]),
            bias=self.bias(node),
            packed=name in packed,
            behind=self.behind(node.output[0]),
            attributes={a.name: a.f if a.type == a.FLOAT else float(a.i) for a in node.attribute if a.type in (1, 2)},
        )

    def grid_of(self, name: str) -> Grid | None:
        """The grid that a value lies on, as far as it was only moved since."""
        maker = self.makers.get(name)
        while maker is not None and maker.op_type in _MOVES and maker.input:
            maker = self.makers.get(maker.input[0])
        return self.grid(maker) if maker is not None and maker.op_type == "DequantizeLinear" else None

    def grid(self, node: onnx.NodeProto) -> Grid:
        """Of a QuantizeLinear or DequantizeLinear."""
        from onnx import TensorProto  # noqa: PLC0415
        from onnx.helper import tensor_dtype_to_np_dtype  # noqa: PLC0415

        zero_name = node.input[2] if len(node.input) > 2 else ""
        tensor = self.constants.get(zero_name)
        source = self.constants.get(node.input[0])
        kind = tensor.data_type if tensor is not None else source.data_type if source is not None else TensorProto.UINT8
        given = next((a.i for a in node.attribute if a.name == "output_dtype" and a.i), 0)
        dtype = str(tensor_dtype_to_np_dtype(kind if tensor is not None or not given else given))
        scale, zero = self.array(node.input[1]), self.array(zero_name) if zero_name else np.zeros(1)
        per_tensor = scale is None or scale.size == 1
        zeros = () if zero is None else tuple(sorted({int(z) for z in zero.reshape(-1)}))
        top = {"uint8": 255, "int8": 127}.get(dtype)
        known = top is not None and scale is not None and scale.size == 1 and len(zeros) == 1
        return Grid(
            dtype=dtype,
            zero_points=zeros,
            axis=None if per_tensor else next((a.i for a in node.attribute if a.name == "axis"), 1),
            highest=float(scale.reshape(-1)[0]) * (top - zeros[0]) if known else None,  # type: ignore[operator, union-attr]
        )

    def array(self, name: str) -> np.ndarray | None:
        """A constant's values; None where it is none, or where its data lie in another file."""
        from onnx import TensorProto, numpy_helper  # noqa: PLC0415

        tensor = self.constants.get(name)
        if tensor is None or tensor.data_location == TensorProto.EXTERNAL:
            return None
        return np.asarray(numpy_helper.to_array(tensor))

    def is_constant(self, name: str) -> bool:
        maker = self.makers.get(name)
        while maker is not None and (maker.op_type in _MOVES or maker.op_type == "DequantizeLinear") and maker.input:
            name = maker.input[0]
            maker = self.makers.get(name)
        return name in self.constants

    def bias(self, node: onnx.NodeProto) -> Literal["none", "float", "int32"]:
        if len(node.input) < 3 or not node.input[2]:
            return "none"
        maker = self.makers.get(node.input[2])
        return "int32" if maker is not None and maker.op_type == "DequantizeLinear" else "float"

    def reached(self, name: str) -> list[str]:
        """The value, and what comes of it through single readers up to the next multiplication."""
        found = [name]
        while len(found) <= _DEEP and found[-1] not in self.outputs:
            readers = self.readers.get(found[-1], [])
            if len(readers) != 1 or readers[0].op_type in _COUNTED | _WRITTEN_INT8:
                break
            found.append(readers[0].output[0])
        return found

    def behind(self, name: str) -> Behind:
        between: list[str] = []
        clip: tuple[float, float] | None = None
        while len(between) <= _DEEP:
            readers = self.readers.get(name, [])
            if name in self.outputs or not readers:
                others = tuple(node.op_type for node in readers)
                return Behind(end="output", between=tuple(between), readers=others, clip=clip)
            if len(readers) > 1:
                others = tuple(node.op_type for node in readers)
                return Behind(end="readers", between=tuple(between), readers=others, clip=clip)
            reader = readers[0]
            if reader.op_type == "QuantizeLinear":
                return Behind(end="quantize", between=tuple(between), grid=self.grid(reader), clip=clip)
            if reader.op_type == "Clip":
                clip = self.bounds(reader)
            between.append(reader.op_type)
            name = reader.output[0]
        return Behind(end="none", between=tuple(between), clip=clip)

    def bounds(self, clip: onnx.NodeProto) -> tuple[float, float]:
        low, high = (self.array(clip.input[i]) if len(clip.input) > i and clip.input[i] else None for i in (1, 2))
        return (
            -np.inf if low is None or low.size != 1 else float(low.reshape(-1)[0]),
            np.inf if high is None or high.size != 1 else float(high.reshape(-1)[0]),
        )
