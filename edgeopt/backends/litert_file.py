"""A ``.tflite`` file as it leaves the converter: its inputs and outputs put in order, and back to the graph's types."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np

from edgeopt.core.errors import BackendError
from edgeopt.core.spec import TensorSpec

__all__ = ["with_ports"]

_NUMBER = re.compile(r"(?:args|output)_(\d+)")
_IDENTIFIER = b"TFL3"


def with_ports(data: bytes, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> bytes:
    """Give the file the graph's own inputs and outputs.

    The converter takes a QuantizeLinear at the input (and a DequantizeLinear at the output) out of the file and leaves an
    int8 tensor there. The graph's contract is float: the two are put back as LiteRT's QUANTIZE and DEQUANTIZE.

    Args:
        data: The converter's bytes; its tensors are named ``…args_0``, ``…output_0``.
        inputs: In the graph's order, at fixed sizes; likewise ``outputs``.

    Raises:
        BackendError: An input or output is missing, or of a type that no QUANTIZE leads to.
    """
    from ai_edge_litert import schema_py_generated as schema  # noqa: PLC0415

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))
    graph = model.subgraphs[0]
    graph.inputs = np.array(_ordered(graph, graph.inputs, inputs), np.int32)
    graph.outputs = np.array(_ordered(graph, graph.outputs, outputs), np.int32)
    moved: dict[int, int] = {}
    for place, spec in enumerate(inputs):
        old = int(graph.inputs[place])
        if (new := _float_twin(schema, graph, old, spec)) is not None:
            graph.operators.insert(0, _operator(schema, model, "QUANTIZE", new, old))
            graph.inputs[place] = moved[old] = new
    for place, spec in enumerate(outputs):
        old = int(graph.outputs[place])
        if (new := _float_twin(schema, graph, old, spec)) is not None:
            graph.operators.append(_operator(schema, model, "DEQUANTIZE", old, new))
            graph.outputs[place] = moved[old] = new
    for signature in model.signatureDefs or []:
        for port in (*signature.inputs, *signature.outputs):
            port.tensorIndex = moved.get(port.tensorIndex, port.tensorIndex)
    builder = flatbuffers.Builder(len(data))
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def _ordered(graph: Any, places: Sequence[int], specs: Sequence[TensorSpec]) -> list[int]:
    """Tensor numbers in the order of ``specs``, by the number in the tensors' names."""
    numbered: dict[int, int] = {}
    for place in places:
        name = (graph.tensors[int(place)].name or b"").decode(errors="replace")
        found = _NUMBER.search(name)
        numbered[int(found.group(1)) if found else len(numbered)] = int(place)
    if sorted(numbered) != list(range(len(specs))):
        raise BackendError(
            "LiteRT's converter lost an input or output of the graph.",
            got=f"{len(numbered)} where the graph has {', '.join(map(str, specs))}",
        )
    return [numbered[index] for index in range(len(specs))]


def _float_twin(schema: Any, graph: Any, index: int, spec: TensorSpec) -> int | None:
    """A new float32 tensor beside an int8 one; None where the tensor has the graph's own type already."""
    tensor = graph.tensors[index]
    is_integer = tensor.type in (schema.TensorType.INT8, schema.TensorType.UINT8)
    if not is_integer or spec.dtype in ("int8", "uint8"):
        return None
    if spec.dtype != "float32" or tensor.quantization is None or tensor.quantization.scale is None:
        raise BackendError("LiteRT's converter changed the type of an input or output.", got=str(spec))
    twin = copy.copy(tensor)
    twin.type, twin.quantization, twin.buffer = schema.TensorType.FLOAT32, None, 0
    twin.name = (tensor.name or b"") + b"_float"
    graph.tensors.append(twin)
    return len(graph.tensors) - 1


def _operator(schema: Any, model: Any, name: str, source: int, result: int) -> Any:
    number = getattr(schema.BuiltinOperator, name)
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    if number not in codes:
        code = schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = number, number, 1
        model.operatorCodes.append(code)
        codes.append(number)
    operator = schema.OperatorT()
    operator.opcodeIndex = codes.index(number)
    operator.inputs, operator.outputs = np.array([source], np.int32), np.array([result], np.int32)
    return operator
