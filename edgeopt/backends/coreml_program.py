"""A Core ML package as it lies on the disk: operations, types, constants; the weight file is read byte by byte.

Independent of coremltools' converter: what is found here is what Core ML will find. Sources: coremltools' mlmodel/format,
MIL.proto; its mlmodel/src/MILBlob/Blob/StorageFormat.hpp (the weight file).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt.backends.coreml_convert import MODEL
from edgeopt.core.errors import BackendError

__all__ = ["Operation", "Program", "read_package"]

_SENTINEL = 0xDEADBEEF
_RECORD = struct.Struct("<IIQQ")  # sentinel, type, size in bytes, place of the data
_BLOB_TYPES = {1: "float16", 2: "float32", 3: "uint8", 4: "int8", 6: "int16", 7: "uint16", 14: "int32", 15: "uint32"}
_FIELDS = {"floats": "float32", "ints": "int32", "bools": "bool", "longInts": "int64", "doubles": "float64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One MIL operation.

    Attributes:
        op: Its type, e.g. ``conv``.
        inputs: Parameter → names of values, or the constant itself where it is written in place.
        output: The name of its first output.
        dtype: That output's type.
    """

    op: str
    inputs: Mapping[str, Any]
    output: str
    dtype: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """The main function.

    Attributes:
        inputs: Name → (type, shape), as an app sees them; likewise ``outputs``.
        operations: In the program's order, without constants.
        constants: By name; ``from_file`` are those that the weight file holds.
    """

    inputs: Mapping[str, tuple[str, tuple[int, ...]]]
    outputs: Mapping[str, tuple[str, tuple[int, ...]]]
    operations: tuple[Operation, ...]
    constants: Mapping[str, Any]
    from_file: frozenset[str]

    def constant(self, operation: Operation, parameter: str) -> Any:
        """A parameter's value where it is constant; None where it is absent or computed."""
        given = operation.inputs.get(parameter)
        return self.constants.get(given) if isinstance(given, str) else given


def read_package(package: Path) -> Program:
    """Read an ``.mlpackage``.

    Raises:
        BackendError: It holds no ML program, or its weight file is not whole.
    """
    from coremltools.proto import FeatureTypes_pb2, MIL_pb2, Model_pb2  # noqa: PLC0415

    spec = Model_pb2.Model()
    try:
        spec.ParseFromString((package / MODEL).read_bytes())
        (block,) = spec.mlProgram.functions["main"].block_specializations.values()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackendError("The Core ML package holds no ML program.", got=package.name) from error
    except Exception as error:  # protobuf's own DecodeError
        raise BackendError("The Core ML package cannot be read.", got=f"{package.name}: {error}") from error
    root = (package / MODEL).parent
    constants: dict[str, Any] = {}
    from_file: set[str] = set()
    operations = []
    for operation in block.operations:
        output = operation.outputs[0]
        if operation.type == "const":
            value = operation.attributes["val"]
            constants[output.name] = _value(value, root)
            if value.WhichOneof("value") == "blobFileValue":
                from_file.add(output.name)
            continue
        # iOS 16's constexpr operations keep their constants among the attributes.
        inputs = {key: _value(held, root) for key, held in operation.attributes.items() if key != "name"}
        inputs |= {key: _argument(held, root) for key, held in operation.inputs.items()}
        kind = MIL_pb2.DataType.Name(output.type.tensorType.dataType).lower()
        operations.append(
            Operation(op=operation.type, inputs=inputs, output=output.name, dtype=kind.replace("string", "str"))
        )

    def ports(features: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
        enum = FeatureTypes_pb2.ArrayFeatureType.ArrayDataType
        arrays = {feature.name: feature.type.multiArrayType for feature in features}
        return {name: (enum.Name(one.dataType).lower(), tuple(one.shape)) for name, one in arrays.items()}

    return Program(
        inputs=ports(spec.description.input),
        outputs=ports(spec.description.output),
        operations=tuple(operations),
        constants=constants,
        from_file=frozenset(from_file),
    )


def _argument(argument: Any, root: Path) -> Any:
    found = [
        each.name if each.WhichOneof("binding") == "name" else _value(each.value, root) for each in argument.arguments
    ]
    return found[0] if len(found) == 1 else found


def _value(value: Any, root: Path) -> Any:
    """A constant: a NumPy array, a text, or None where it is of a kind that nothing here asks for."""
    tensor_type = value.type.tensorType
    shape = [int(dim.constant.size) for dim in tensor_type.dimensions]
    if value.WhichOneof("value") == "blobFileValue":
        held = value.blobFileValue
        return _blob(root / held.fileName.removeprefix("@model_path/"), int(held.offset)).reshape(shape)
    tensor = value.immediateValue.tensor
    kind = tensor.WhichOneof("value")
    if kind == "strings":
        return tensor.strings.values[0] if tensor.strings.values else None
    if kind == "bytes":
        from coremltools.proto import MIL_pb2  # noqa: PLC0415

        name = MIL_pb2.DataType.Name(tensor_type.dataType).lower()
        return np.frombuffer(tensor.bytes.values, dtype=np.dtype(name)).reshape(shape)
    if kind in _FIELDS:
        return np.array(getattr(tensor, kind).values, dtype=_FIELDS[kind]).reshape(shape)
    return None


def _blob(path: Path, offset: int) -> np.ndarray:
    try:
        data = np.memmap(path, dtype=np.uint8, mode="r")
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        raise BackendError("The weight file of the Core ML package cannot be read.", got=error) from error
    if offset + _RECORD.size > len(data):
        raise BackendError(
            "The weight file of the Core ML package is not whole.", got=f"{path.name}, {len(data)} bytes"
        )
    sentinel, kind, size, place = _RECORD.unpack(data[offset : offset + _RECORD.size].tobytes())
    if sentinel != _SENTINEL or kind not in _BLOB_TYPES or place + size > len(data):
        raise BackendError("The weight file of the Core ML package is not whole.", got=f"{path.name} at {offset}")
    return np.frombuffer(
        data, dtype=_BLOB_TYPES[kind], count=size // np.dtype(_BLOB_TYPES[kind]).itemsize, offset=place
    )
