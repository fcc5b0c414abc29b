"""Read and write ONNX files: external data stays inside its folder, a file is whole or absent."""

from __future__ import annotations

import glob
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError

from edgeopt.core.errors import GraphError

__all__ = ["check_onnx", "graph_files", "initializer_bytes", "load_onnx", "save_checked", "save_onnx"]

_PROTOBUF_LIMIT = 2**31 - 2**20  # a message holds less than 2 GiB; 1 MiB is left for everything but the tensors
_CHUNK = 1 << 20


def load_onnx(path: Path) -> ir.Model:
    """Read a model; external data is mapped into memory on use.

    Raises:
        GraphError: The file is missing or not ONNX; or its external data is missing, too short, or outside the
            file's own folder (links are followed first).
    """
    try:
        proto = onnx.load(path, format="protobuf", load_external_data=False)
    except FileNotFoundError as error:
        raise GraphError("There is no ONNX file at this path.", got=path) from error
    except (DecodeError, OSError) as error:
        raise GraphError("The file is not a readable ONNX model.", got=f"{path.name}: {error}") from error
    if not proto.graph.node and not proto.graph.output:
        raise GraphError("The file is not an ONNX model: it has no graph.", got=path.name)
    model = ir.serde.deserialize_model(proto)
    for tensor in _external_tensors(model):
        _check_external(tensor, path)
    for graph in model.graphs():
        ir.external_data.set_base_dir(graph, path.parent)
    return model


def save_onnx(model: ir.Model, path: Path) -> None:
    """Write ``model`` so that ``path`` is never half a file; equal models give equal bytes.

    A model beyond protobuf's 2 GiB keeps its tensors in one file beside it. That file's name holds the hash of its
    content, so an older model at ``path`` stays valid until the very last step.

    Raises:
        GraphError: The folder cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            file = Path(folder) / "model.onnx"
            if initializer_bytes(model) > _PROTOBUF_LIMIT:
                _write_external(model, file, path)
            else:
                ir.external_data.load_to_model(model)
                file.write_bytes(_serialize(model))
            file.replace(path)
    except OSError as error:
        raise GraphError(
            "The ONNX file cannot be written.", got=f"{path}: {error}", fix="Choose a writable folder with free space."
        ) from error


def graph_files(path: Path) -> list[Path]:
    """The files that ``save_onnx`` left for the model at ``path``: the graph, and its tensors where they lie beside it."""
    return [path, *sorted(path.parent.glob(f"{glob.escape(path.stem)}.*.data"))]


def save_checked(model: ir.Model, path: Path) -> None:
    """Write ``model`` and run ONNX's full check on it; a file that fails does not stay.

    Raises:
        GraphError: The folder cannot be written, or the graph is not valid.
    """
    save_onnx(model, path)
    try:
        check_onnx(path)
    except GraphError:
        path.unlink(missing_ok=True)
        raise


def check_onnx(path: Path) -> None:
    """Run ONNX's own full check: types and shapes of every node.

    Raises:
        GraphError: The checker's first line.
    """
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:  # the checker raises its own, shape inference another, C++ a third
        raise GraphError("The graph is not valid ONNX.", got=f"{path.name}: {_first_line(error)}") from error


def initializer_bytes(model: ir.Model) -> int:
    """How many bytes the model's constant tensors take."""
    return sum(
        value.const_value.nbytes
        for graph in model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None
    )


def _external_tensors(model: ir.Model) -> Iterator[ir.ExternalTensor]:
    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                yield value.const_value
        for node in graph:
            for attribute in node.attributes.values():
                if isinstance(attribute.value, ir.ExternalTensor):
                    yield attribute.value


def _check_external(tensor: ir.ExternalTensor, path: Path) -> None:
    folder = path.parent.resolve()
    location = Path(os.fspath(tensor.location))
    file = (folder / location).resolve()
    if location.is_absolute() or not file.is_relative_to(folder):
        raise GraphError(
            f"Tensor {tensor.name!r} of {path.name} keeps its data outside the model's folder.",
            got=str(location),
            fix="Put the data file beside the model and save it with a plain file name.",
        )
    end = (tensor.offset or 0) + (tensor.length or 0)
    if not file.is_file() or file.stat().st_size < end:
        raise GraphError(
            f"The external data of tensor {tensor.name!r} of {path.name} is missing or too short.",
            got=str(location),
            fix="Copy the data file together with the model.",
        )


def _write_external(model: ir.Model, file: Path, path: Path) -> None:
    first = file.with_name("data")
    ir.save(model, file, external_data=first.name)
    digest = hashlib.sha256()
    with first.open("rb") as data:
        while chunk := data.read(_CHUNK):
            digest.update(chunk)
    name = f"{path.stem}.{digest.hexdigest()[:16]}.data"
    proto = onnx.load(file, load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = name
    file.write_bytes(proto.SerializeToString(deterministic=True))
    first.replace(path.with_name(name))


def _serialize(model: ir.Model) -> bytes:
    data: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
    return data


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
