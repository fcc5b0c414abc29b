"""One view of a graph for all rules: who makes a tensor, who reads it, which constant it is, on which grid it lies."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from edgeopt.backends.graphs import Graph

if TYPE_CHECKING:
    import onnx

__all__ = ["ONNX_DOMAINS", "WEIGHTED", "Facts", "Grid", "attribute", "placeholder", "walk"]

ONNX_DOMAINS = ("", "ai.onnx")
WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_MAX_CHAIN = 1000  # a hostile graph may hold a cycle


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grid:
    """The grid of a QuantizeLinear or DequantizeLinear.

    Attributes:
        node: The Q or DQ.
        scale: One or one per slice; None where it is computed.
        zero: Likewise; None where it is absent or computed.
        has_zero: Whether the node has a zero point at all.
        dtype: The integer type; None where only the runtime would know.
        axis: Along which the scales lie, where there are several.
        blocked: Whether there is one scale per block.
    """

    node: onnx.NodeProto
    scale: np.ndarray | None
    zero: np.ndarray | None
    has_zero: bool
    dtype: str | None
    axis: int
    blocked: bool

    @property
    def per_channel(self) -> bool:
        """Whether there are several scales."""
        return self.scale is not None and self.scale.size > 1

    @property
    def zero_point(self) -> int | None:
        """The zero point farthest from 0; 0 where there is none, None where it is computed."""
        if not self.has_zero:
            return 0
        if self.zero is None or not self.zero.size:
            return None
        flat = self.zero.ravel().astype(np.int64)
        return int(flat[np.abs(flat).argmax()])


@dataclass(frozen=True, kw_only=True)  # no slots: grids are kept after the first look
class Facts:
    """A graph's nodes (those of subgraphs too) and tensors by name.

    Attributes:
        readers: Tensor → the nodes that read it.
        makers: Tensor → the node that makes it.
        tensors: Constant → its tensor, of initializers and Constant nodes.
        outputs: The graph's outputs.
    """

    graph: Graph
    nodes: tuple[onnx.NodeProto, ...]
    makers: Mapping[str, onnx.NodeProto]
    readers: Mapping[str, list[onnx.NodeProto]]
    tensors: Mapping[str, onnx.TensorProto]
    outputs: frozenset[str]
    _arrays: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: Graph) -> Facts:
        """Look at a graph once."""
        nodes, tensors = walk(graph.model.graph)
        made = [(node.output[0], a) for node in nodes if node.op_type == "Constant" for a in node.attribute]
        tensors |= {name: a.t for name, a in made if a.name == "value"}
        readers = defaultdict(list)
        for node in nodes:
            for name in dict.fromkeys(node.input):
                readers[name].append(node)
        return cls(
            graph=graph,
            nodes=tuple(nodes),
            makers={name: node for node in nodes for name in node.output if name},
            readers=readers,
            tensors=tensors,
            outputs=frozenset(value.name for value in graph.model.graph.output),
        )

    def array(self, name: str) -> np.ndarray | None:
        """A constant's values, or None where the tensor is not constant."""
        from onnx import numpy_helper  # noqa: PLC0415

        if name not in self.tensors:
            return None
        if name not in self._arrays:
            self._arrays[name] = numpy_helper.to_array(self.tensors[name], str(self.graph.path.parent))
        return self._arrays[name]

    def shape(self, name: str) -> tuple[int, ...] | None:
        """A constant's shape, without reading it."""
        tensor = self.tensors.get(name)
        return None if tensor is None else tuple(tensor.dims)

    @functools.cached_property
    def shapes(self) -> Mapping[str, tuple[int | str, ...]]:
        """The shapes that ONNX infers, of the main graph's tensors; a dimension that may vary is a name."""
        import onnx  # noqa: PLC0415

        try:
            inferred = onnx.shape_inference.infer_shapes(self.graph.model)
        except Exception:  # noqa: BLE001 - protobuf's limit of 2 GiB, or a graph that another rule refuses
            inferred = self.graph.model
        values = (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output)
        return {
            value.name: tuple(
                dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?"
                for dim in value.type.tensor_type.shape.dim
            )
            for value in values
            if value.type.tensor_type.HasField("shape")
        }

    def dtype(self, name: str) -> str | None:
        """A constant's type, without reading it."""
        tensor = self.tensors.get(name)
        return None if tensor is None else str(placeholder(tensor).dtype)

    def maker(self, name: str, through: Collection[str] = ()) -> onnx.NodeProto | None:
        """Who makes a tensor; nodes of the types ``through`` are passed by their first input."""
        node = self.makers.get(name)
        for _ in range(_MAX_CHAIN):
            if node is None or node.op_type not in through or not node.input:
                return node
            node = self.makers.get(node.input[0])
        return None

    def dequantizer(self, name: str, through: Collection[str] = ()) -> onnx.NodeProto | None:
        """The DequantizeLinear that makes a tensor, or None."""
        node = self.maker(name, through)
        return node if node is not None and node.op_type == "DequantizeLinear" else None

    def is_weight(self, node: onnx.NodeProto | None) -> bool:
        """Whether a DequantizeLinear reads a constant, stored as integers or quantized where the graph is run."""
        if node is None:
            return False
        maker = self.makers.get(node.input[0])
        quantized = maker is not None and maker.op_type == "QuantizeLinear" and maker.input[0] in self.tensors
        return node.input[0] in self.tensors or quantized

    def weight(self, node: onnx.NodeProto) -> onnx.NodeProto | None:
        """The DequantizeLinear of a weighted node's constant weight, or None."""
        found = self.dequantizer(node.input[1], ("Transpose",)) if len(node.input) > 1 else None
        return found if self.is_weight(found) else None

    def weighted(self) -> Iterator[onnx.NodeProto]:
        """Every convolution and matrix product of ONNX's own."""
        return (
            node
            for node in self.nodes
            if node.op_type in WEIGHTED and node.domain in ONNX_DOMAINS and len(node.input) > 1
        )

    def grid(self, node: onnx.NodeProto) -> Grid:
        """The grid of a Q or DQ, looked at once."""
        return self._grid(id(node))

    @functools.cached_property
    def _quantizers(self) -> dict[int, onnx.NodeProto]:
        return {id(node): node for node in self.nodes if node.op_type.endswith("uantizeLinear")}

    @functools.cached_property
    def _grids(self) -> dict[int, Grid]:
        return {}

    def _grid(self, key: int) -> Grid:
        if key not in self._grids:
            node = self._quantizers[key]
            has_zero = len(node.input) > 2 and bool(node.input[2])
            self._grids[key] = Grid(
                node=node,
                scale=self.array(node.input[1]),
                zero=self.array(node.input[2]) if has_zero else None,
                has_zero=has_zero,
                dtype=self._integer_type(node, has_zero=has_zero),
                axis=attribute(node, "axis", 1),
                blocked=attribute(node, "block_size", 0) > 0,
            )
        return self._grids[key]

    def _integer_type(self, node: onnx.NodeProto, *, has_zero: bool) -> str | None:
        from onnx.helper import tensor_dtype_to_np_dtype  # noqa: PLC0415

        if has_zero:
            return self.dtype(node.input[2])
        if node.op_type == "QuantizeLinear":
            kind = attribute(node, "output_dtype", 0)
            return str(tensor_dtype_to_np_dtype(kind)) if kind else "uint8"
        return self.dtype(node.input[0])


def attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """An integer attribute."""
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def walk(graph: onnx.GraphProto) -> tuple[list[onnx.NodeProto], dict[str, onnx.TensorProto]]:
    """Every node and initializer, those of subgraphs too."""
    nodes: list[onnx.NodeProto] = []
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        nodes.append(node)
        for each in node.attribute:
            for inner in (each.g, *each.graphs) if each.HasField("g") else each.graphs:
                inner_nodes, inner_tensors = walk(inner)
                nodes += inner_nodes
                tensors |= inner_tensors
    return nodes, tensors


def placeholder(tensor: onnx.TensorProto) -> np.ndarray:
    """An empty array of a tensor's type."""
    from onnx.helper import tensor_dtype_to_np_dtype  # noqa: PLC0415

    return np.empty(0, tensor_dtype_to_np_dtype(tensor.data_type))
