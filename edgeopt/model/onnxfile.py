"""An ONNX file as given: checked, and never reaching for data outside its folder."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx

from edgeopt.core.errors import ModelError, UnsafeModelError
from edgeopt.core.spec import DTYPES, Dim, TensorSpec

__all__ = ["describe_onnx", "external_files", "opset_of"]

_DecodeError: type[Exception] = importlib.import_module("google.protobuf.message").DecodeError  # it has no types
_EXTERNAL = onnx.TensorProto.EXTERNAL


def describe_onnx(path: Path) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...], int]:
    """Check an ONNX file, and give its inputs, its outputs, and how many numbers its initializers hold.

    An initializer that older files also list as an input is no input.

    Raises:
        ModelError: The file is damaged or not valid ONNX, its external data is missing, or an input is no tensor.
        UnsafeModelError: It names external data outside its own folder.
    """
    model = _read(path)
    external_files(path, model)
    try:
        onnx.checker.check_model(str(path), full_check=False)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise ModelError(
            "The file is not valid ONNX.",
            got=f"{path}: {str(error).strip().splitlines()[0]}",
            fix="Export it again; `python -c \"import onnx; onnx.checker.check_model('model.onnx')\"` shows the rest.",
        ) from error
    initializers = {t.name for t in model.graph.initializer} | {t.values.name for t in model.graph.sparse_initializer}
    inputs = tuple(_spec(value) for value in model.graph.input if value.name not in initializers)
    if not inputs:
        raise ModelError("The ONNX model has no input.", got=str(path), fix="Export it with its inputs as arguments.")
    outputs = tuple(_spec(value) for value in model.graph.output)
    floating = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE, onnx.TensorProto.BFLOAT16)
    parameters = sum(_count(t.dims) for t in model.graph.initializer if t.data_type in floating)
    return inputs, outputs, parameters


def opset_of(path: Path) -> int:
    """The version of ONNX's own operators that a file asks for; 0 where it names none.

    Raises:
        ModelError: The file is damaged.
    """
    return next((one.version for one in _read(path).opset_import if one.domain in ("", "ai.onnx")), 0)


def external_files(path: Path, model: onnx.ModelProto | None = None) -> dict[str, Path]:
    """The external data files that an ONNX file names, by the names it uses; nothing of them is read.

    Raises:
        UnsafeModelError: A name is absolute, climbs out of the folder, or is a link that leads out of it.
        ModelError: A file is missing.
    """
    model = model or _read(path)
    folder = path.resolve().parent
    files: dict[str, Path] = {}
    for tensor in _tensors(model):
        if tensor.data_location != _EXTERNAL:
            continue
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        if location in files:
            continue
        _refuse_outside(path, folder, tensor.name, location)
        file = folder / location
        if not file.is_file():
            raise ModelError(
                f"The ONNX file keeps its weight {tensor.name!r} in a file that is not there.",
                got=str(path.parent / location),
                fix="Copy the data file beside the .onnx file.",
            )
        files[location] = file
    return files


def _refuse_outside(path: Path, folder: Path, tensor: str, location: str) -> None:
    parts = (*PurePosixPath(location).parts, *PureWindowsPath(location).parts)
    absolute = PurePosixPath(location).is_absolute() or bool(PureWindowsPath(location).anchor)
    leads_out = absolute or ".." in parts or not location or "\0" in location
    if leads_out or not Path(os.path.realpath(folder / location)).is_relative_to(folder):
        raise UnsafeModelError(
            f"The ONNX file keeps its weight {tensor!r} outside its own folder; it was not read.",
            got=f"{path}, location {location!r}",
            fix="Put the data file beside the .onnx file: onnx.save(model, path, save_as_external_data=True).",
        )


def _read(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(str(path), load_external_data=False)
    except (_DecodeError, OSError, ValueError) as error:
        raise ModelError(
            "The ONNX file cannot be read: it is damaged or cut short.", got=str(path), fix="Copy or export it again."
        ) from error


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    yield from _graph_tensors(model.graph)
    for function in model.functions:
        yield from _node_tensors(function.node)
    for training in model.training_info:
        yield from _graph_tensors(training.initialization)
        yield from _graph_tensors(training.algorithm)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            if attribute.HasField("g"):
                yield from _graph_tensors(attribute.g)
            for graph in attribute.graphs:
                yield from _graph_tensors(graph)


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    if not value.type.HasField("tensor_type"):
        raise ModelError(f"The ONNX model's {value.name!r} is not a tensor.", got=value.type.WhichOneof("value"))
    tensor = value.type.tensor_type
    dtype = str(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)) if tensor.elem_type else "undefined"
    if dtype not in DTYPES:
        raise ModelError(
            f"Tensor {value.name!r} of the ONNX model has a dtype that edgeopt does not know.",
            got=dtype,
            fix=f"Known: {', '.join(DTYPES)}.",
        )
    dims = tuple(_dim(value.name, axis, dim) for axis, dim in enumerate(tensor.shape.dim))
    return TensorSpec(name=value.name, dtype=dtype, shape=dims)


def _dim(name: str, axis: int, dim: onnx.TensorShapeProto.Dimension) -> Dim:
    kind = dim.WhichOneof("value")
    if kind == "dim_value" and dim.dim_value > 0:
        return int(dim.dim_value)
    return str(dim.dim_param) if kind == "dim_param" and dim.dim_param else f"{name}_{axis}"


def _count(dims: Iterable[int]) -> int:
    count = 1
    for dim in dims:
        count *= dim
    return count
