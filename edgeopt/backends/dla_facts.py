"""What a plan for the DLA needs to know of a graph whose batch is fixed: shapes, types, small constants."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeopt.backends.graphs import Graph

if TYPE_CHECKING:
    import numpy as np
    import onnx

__all__ = ["Facts"]

_SMALL = 64  # elements: axes, bounds, scales of a resize


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Shapes (all numbers known), types and small constants by name."""

    model: onnx.ModelProto
    shapes: Mapping[str, tuple[int, ...]]
    types: Mapping[str, str]
    constants: Mapping[str, np.ndarray | None]

    @classmethod
    def of(cls, graph: Graph, batch: int) -> Facts:
        """Infer with the batch at its number; weights are known to be there and not read."""
        import onnx  # noqa: PLC0415
        from onnx import numpy_helper, shape_inference  # noqa: PLC0415
        from onnx.helper import tensor_dtype_to_np_dtype  # noqa: PLC0415

        model = onnx.ModelProto()
        model.CopyFrom(graph.model)
        for value in model.graph.input:
            dims = value.type.tensor_type.shape.dim
            if dims and not dims[0].HasField("dim_value"):
                dims[0].dim_value = batch
        # Shapes that the file states may be of another batch.
        for value in model.graph.output:
            value.type.tensor_type.ClearField("shape")
        del model.graph.value_info[:]
        try:
            inferred = shape_inference.infer_shapes(model)
        except Exception:  # noqa: BLE001 - protobuf's limit of 2 GiB, or a graph that a rule of the linter refuses
            inferred = model
        tensors = {tensor.name: tensor for tensor in inferred.graph.initializer}
        for node in inferred.graph.node:
            if node.op_type == "Constant":
                tensors |= {
                    name: a.t for name, a in zip(node.output, node.attribute, strict=False) if a.name == "value"
                }
        constants = {
            name: None if tensor.external_data or math.prod(tensor.dims) > _SMALL else numpy_helper.to_array(tensor)
            for name, tensor in tensors.items()
        }
        shapes = {name: tuple(tensor.dims) for name, tensor in tensors.items()}
        types: dict[str, str] = {}
        for value in (*inferred.graph.input, *inferred.graph.output, *inferred.graph.value_info):
            kind = value.type.tensor_type
            if kind.elem_type:
                types[value.name] = str(tensor_dtype_to_np_dtype(kind.elem_type))
            if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim):
                shapes[value.name] = tuple(dim.dim_value for dim in kind.shape.dim)
        return cls(model=inferred, shapes=shapes, types=types, constants=constants)

    def number(self, node: onnx.NodeProto, index: int) -> float | None:
        """A constant input that is one number; None where it is absent or something else."""
        value = self.constants.get(node.input[index]) if len(node.input) > index else None
        return float(value.ravel()[0]) if value is not None and value.size == 1 else None
