"""Names and sizes of dimensions: the exporter's symbols become the names that the specs use."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from edgeopt.core.errors import GraphError
from edgeopt.core.events import Event
from edgeopt.core.spec import TensorSpec

__all__ = ["name_shapes"]


def name_shapes(
    model: ir.Model, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], *, dynamic_batch: bool
) -> list[Event]:
    """Give the graph's inputs the specs' dimensions (a dynamic first one is ``batch``), and carry them through.

    Returns:
        One event where a dimension that the program leaves open was fixed; shapes behind it are then inferred anew.

    Raises:
        GraphError: A spec names a dimension that the program has fixed, or fixes it to another size.
    """
    names: dict[str, str] = {}
    fixed: list[Event] = []
    _check_ranks("Input", model.graph.inputs, inputs)
    for value, spec in zip(model.graph.inputs, inputs, strict=True):
        dims = [_wanted(dim, index, dynamic_batch=dynamic_batch) for index, dim in enumerate(spec.shape)]
        for index, (current, wanted) in enumerate(zip(value.shape or (), dims, strict=True)):
            if isinstance(current, int):
                _check_fixed(spec, index, current, wanted)
            elif isinstance(wanted, int):
                fixed.append(Event(kind="note", stage="export", message=f"{spec.name}: dimension {index} is {wanted}."))
            elif current.value is not None:
                names[str(current.value)] = wanted
        value.shape = ir.Shape(dims)
    if fixed:
        _infer_again(model)
    for value in _values(model.graph):
        if value.shape is not None:
            value.shape = ir.Shape([_rename(dim, names) for dim in value.shape])
    _check_ranks("Output", model.graph.outputs, outputs)
    return fixed


def _check_ranks(kind: str, values: Sequence[ir.Value], specs: Sequence[TensorSpec]) -> None:
    for value, spec in zip(values, specs, strict=True):
        if value.shape is not None and len(value.shape) != len(spec.shape):
            raise GraphError(f"{kind} {spec.name!r} has another rank in the program.", got=f"{spec}; {value.shape}")


def _check_fixed(spec: TensorSpec, index: int, current: int, wanted: int | str) -> None:
    if wanted != current:
        raise GraphError(
            f"Dimension {index} of input {spec.name!r} is fixed to {current} in the program.",
            got=spec.shape[index],
            fix=f"Write {current} there, or export the model with this dimension dynamic.",
        )


def _wanted(dim: int | str, index: int, *, dynamic_batch: bool) -> int | str:
    if isinstance(dim, int) or index:
        return dim
    return "batch" if dynamic_batch else 1


def _rename(dim: int | ir.SymbolicDim, names: Mapping[str, str]) -> int | str | None:
    if isinstance(dim, int):
        return dim
    if dim.value is None:
        return None
    return re.sub(r"[A-Za-z_]\w*", lambda match: names.get(match[0], match[0]), str(dim.value))


def _values(graph: ir.Graph) -> list[ir.Value]:
    return [*graph.inputs, *(value for node in graph for value in node.outputs)]


def _infer_again(model: ir.Model) -> None:
    for node in model.graph:
        for value in node.outputs:
            value.shape = None
    ShapeInferencePass(check_type=False, strict_mode=False)(model)
