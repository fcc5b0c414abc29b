"""What every backend needs to know of an ONNX file: its inputs and outputs, its quantized nodes, its files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from edgeopt.core.errors import BackendError, EdgeOptError
from edgeopt.core.spec import Dim, TensorSpec

if TYPE_CHECKING:
    import onnx

__all__ = ["WEIGHTED_OPS", "Graph", "copy_graph", "read_graph"]

WEIGHTED_OPS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_SPARSITY_KEY = "edgeopt.sparsity"  # as the graph room writes it, once it has proved it
# They move values and leave them as they are: int8 on one side is int8 on the other.
_PASS_THROUGH = frozenset({"Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "MaxPool", "Identity"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """An ONNX file, read without its external weights.

    Attributes:
        inputs: What a caller feeds; initializers are not among them.
        outputs: A dimension that the file leaves open is named ``?``.
        quantized: Names of the nodes with weights whose data and weight both come from DequantizeLinear: what a
            runtime with int8 kernels runs in int8.
        packed: Names of the nodes that multiply a float by a weight that is stored in groups of integers.
        sparse: Pattern of zeros → how many nodes have weights that were proved to hold it.
    """

    path: Path
    model: onnx.ModelProto
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    quantized: tuple[str, ...]
    packed: tuple[str, ...] = ()
    sparse: Mapping[str, int] = field(default_factory=dict)

    @property
    def dynamic_batch(self) -> tuple[str, ...]:
        """Names of the inputs whose first dimension may vary."""
        return tuple(spec.name for spec in self.inputs if spec.has_dynamic_batch)

    @property
    def opset(self) -> int:
        """The version of ONNX's own operators."""
        return next((o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx")), 0)

    def names_of(self, node: str) -> set[str]:
        """A node's name and its outputs': runtimes call what they made of it by either."""
        return {node}.union(*(n.output for n in self.model.graph.node if (n.name or n.output[0]) == node))

    def require_batch_only(self, runtime: str) -> None:
        """Refuse an input that varies beyond its first dimension.

        Raises:
            BackendError: There is one.
        """
        for spec in self.inputs:
            if any(isinstance(dim, str) for dim in spec.shape[1:]):
                raise BackendError(
                    f"{runtime} is compiled for fixed sizes, and an input varies beyond its batch.",
                    got=spec,
                    fix="Give the model fixed sizes: --input NAME:DTYPE[batch,3,224,224].",
                )


def read_graph(path: Path) -> Graph:
    """Read an ONNX file's structure.

    Raises:
        BackendError: The file is not an ONNX model, or one of its inputs or outputs has no type that edgeopt knows.
    """
    import onnx  # noqa: PLC0415 (the doctor asks what is installed and imports none of it)

    try:
        model = onnx.load(path, load_external_data=False)
    except OSError as error:
        raise BackendError("The ONNX file cannot be read.", got=error) from error
    except Exception as error:  # protobuf's DecodeError; the class depends on protobuf's implementation
        raise BackendError("The file is not an ONNX model.", got=path, fix="It may be truncated.") from error
    if not model.graph.output:
        raise BackendError("The file is not an ONNX model: it has no outputs.", got=path, fix="It may be truncated.")
    initialized = {tensor.name for tensor in model.graph.initializer}
    fed = [value for value in model.graph.input if value.name not in initialized]
    try:
        return Graph(
            path=path,
            model=model,
            inputs=tuple(_spec(value) for value in fed),
            outputs=tuple(_spec(value) for value in model.graph.output),
            quantized=tuple(_quantized(model)),
            packed=tuple(_packed(model)),
            sparse=_sparse(model),
        )
    except (EdgeOptError, KeyError, TypeError) as error:
        raise BackendError("An input or output of the ONNX file has no usable type.", got=error) from error


def copy_graph(graph: Graph, directory: Path, name: str = "model.onnx") -> Path:
    """Copy the ONNX file and its external weights into ``directory``.

    Raises:
        BackendError: External data lies outside the model's folder, or is missing.
    """
    for location in sorted(_external_files(graph.model)):
        relative = PurePosixPath(location)
        source = graph.path.parent / relative
        inside = source.resolve().is_relative_to(graph.path.parent.resolve())
        if relative.is_absolute() or not inside:
            raise BackendError("The ONNX file's external data points outside its folder.", got=repr(location))
        if not source.is_file():
            raise BackendError("The ONNX file's external data is missing.", got=repr(location))
        destination = directory / relative
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, destination)
    return Path(shutil.copyfile(graph.path, directory / name))


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    from onnx.helper import tensor_dtype_to_np_dtype  # noqa: PLC0415

    kind = value.type.tensor_type
    dtype = str(tensor_dtype_to_np_dtype(kind.elem_type))
    dims: list[Dim] = [d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in kind.shape.dim]
    return TensorSpec(name=value.name, dtype=dtype, shape=tuple(dims))


def _quantized(model: onnx.ModelProto) -> Iterator[str]:
    makers = {name: node for node in model.graph.node for name in node.output}

    def from_int8(name: str) -> bool:
        maker, seen = makers.get(name), set[int]()
        # A hostile graph may hold a cycle.
        while maker is not None and maker.op_type in _PASS_THROUGH and id(maker) not in seen:
            seen.add(id(maker))
            maker = makers.get(maker.input[0])
        return maker is not None and maker.op_type == "DequantizeLinear"

    for node in model.graph.node:
        is_product = node.op_type in WEIGHTED_OPS and len(node.input) > 1 and all(map(from_int8, node.input[:2]))
        if is_product or node.op_type == "MatMulIntegerToFloat":
            yield node.name or node.output[0]


def _packed(model: onnx.ModelProto) -> Iterator[str]:
    blocked = {
        node.output[0]
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and any(a.name == "block_size" and a.i for a in node.attribute)
    }
    blocked |= {n.output[0] for n in model.graph.node if n.op_type == "Transpose" and n.input[0] in blocked}
    for node in model.graph.node:
        weight = node.input[1] if len(node.input) > 1 else ""
        if node.op_type == "MatMulNBits" or (node.op_type in ("Gemm", "MatMul") and weight in blocked):
            yield node.name or node.output[0]


def _sparse(model: onnx.ModelProto) -> dict[str, int]:
    marks = [entry.value for node in model.graph.node for entry in node.metadata_props if entry.key == _SPARSITY_KEY]
    return {pattern: marks.count(pattern) for pattern in sorted(set(marks))}


def _external_files(model: onnx.ModelProto) -> set[str]:
    tensors = list(model.graph.initializer)
    for node in model.graph.node:
        tensors += [attribute.t for attribute in node.attribute if attribute.HasField("t")]
    return {entry.value for t in tensors for entry in t.external_data if entry.key == "location"}
