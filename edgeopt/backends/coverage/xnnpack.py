"""What ExecuTorch's XNNPACK delegate really holds, read from the graphs that were written into the program."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from edgeopt.backends.torch_program.build import TorchProgram, node_of
from edgeopt.backends.torch_program.placement import NOT_PLANNED, fix_of
from edgeopt.core.coverage import INT8, Coverage, ExecutedOp
from edgeopt.core.errors import BackendError

__all__ = ["MULTIPLIES", "DelegateReport", "macs_of", "op_of", "read_delegates"]

# Core ML's partitioner keeps what the program says (conv2d, matmul); the others decompose it into the first row.
_CONVOLUTIONS = tuple(f"conv{rank}d.{form}" for rank in (1, 2, 3) for form in ("default", "padding"))
_TRANSPOSED = ("conv_transpose1d.default", "conv_transpose2d.input", "conv_transpose3d.input")
MULTIPLIES = (
    *("convolution.default", "linear.default", "addmm.default", "mm.default", "bmm.default"),
    *("matmul.default", *_CONVOLUTIONS, *_TRANSPOSED),
)
_TYPES = {
    "xnn_datatype_fp32": "float32",
    "xnn_datatype_fp16": "float16",
    "xnn_datatype_bf16": "bfloat16",
    "xnn_datatype_qint8": INT8,
    "xnn_datatype_quint8": INT8,
    "xnn_datatype_qcint8": INT8,
}
_XNNPACK, _PORTABLE = "XNNPACK", "portable kernels"


@dataclass(frozen=True, slots=True, kw_only=True)
class DelegateReport:
    """Where the program's operations run.

    Attributes:
        coverage: Every product, in the program's order.
        outside: ONNX node → the operation that ExecuTorch runs for it with its own kernels, outside the delegate.
        delegates: How many parts XNNPACK runs; more than one means that data goes back and forth.
    """

    coverage: Coverage
    outside: Mapping[str, str]
    delegates: int


def read_delegates(edge: Any, program: TorchProgram, causes: Mapping[str, str], version: str) -> DelegateReport:
    """Read the lowered program.

    Args:
        edge: What ``to_edge_transform_and_lower`` gave.
        causes: Node → why it was written in float though its weight is quantized.
        version: ExecuTorch's.

    Raises:
        BackendError: A delegate's graph cannot be read.
    """
    module = edge.exported_program().graph_module
    ops: list[ExecutedOp] = []
    outside: dict[str, str] = {}
    delegates = 0
    for node in module.graph.nodes:
        if node.op == "get_attr" and hasattr(getattr(module, node.target), "processed_bytes"):
            delegates += 1
            ops += _delegated(getattr(module, node.target), program, causes)
        elif node.op == "call_function":
            name, op = node_of(program, node.meta), op_of(node)
            if name is None or op is None:
                continue
            if op not in ("dequantize_per_tensor.default", "quantize_per_tensor.default"):
                outside.setdefault(name, op)
            if op in MULTIPLIES:
                kind = str(node.meta["val"].dtype).removeprefix("torch.")
                ops.append(_executed(node, name, program=program, kind=kind, where=_PORTABLE, causes=causes))
    places = {node.name: index for index, node in enumerate(program.plan.nodes)}
    ordered = tuple(sorted(ops, key=lambda op: places.get(op.node, len(places))))
    how = f"the XNNPACK graphs in the program of ExecuTorch {version}"
    return DelegateReport(coverage=Coverage(ops=ordered, how=how), outside=outside, delegates=delegates)


def _delegated(lowered: Any, program: TorchProgram, causes: Mapping[str, str]) -> Iterator[ExecutedOp]:
    types = _input_types(bytes(lowered.processed_bytes))
    for node in lowered.original_module.graph.nodes:
        op = op_of(node) if node.op == "call_function" else None
        name = node_of(program, node.meta) if op in MULTIPLIES else None
        if name is not None:
            kind = types.get(node.meta.get("debug_handle"), "")
            yield _executed(node, name, program=program, kind=kind, where=_XNNPACK, causes=causes)


def _executed(
    node: Any, name: str, *, program: TorchProgram, kind: str, where: str, causes: Mapping[str, str]
) -> ExecutedOp:
    onnx = next(one for one in program.plan.nodes if one.name == name)
    cause = causes.get(name, "")
    if not cause and kind != INT8:
        planned = name in program.plan.graph.quantized
        cause = "ExecuTorch's XNNPACK partitioner has no int8 pattern for it" if planned else NOT_PLANNED
    return ExecutedOp(
        node=name, op=onnx.op, macs=macs_of(node, program), runs_in=kind, where=where, cause=cause, fix=fix_of(cause)
    )


def op_of(node: Any) -> str | None:
    """``convolution.default`` of an aten or edge operation; None of what is none (a call of a delegate, an item of it)."""
    parts = str(getattr(node.target, "__name__", "")).split(".")
    return ".".join(parts[-2:]) if len(parts) > 1 else None


def macs_of(node: Any, program: TorchProgram) -> int:
    """For one sample: every output element takes one multiplication per weight of its channel."""
    sizes = [arg.meta["val"].shape for arg in node.args if hasattr(arg, "meta") and "val" in arg.meta]
    made = node.meta["val"].shape
    op = op_of(node)
    if op == "convolution.default" or op in _CONVOLUTIONS or op in _TRANSPOSED:
        given, weight = sizes[0], sizes[1]
        transposed = op in _TRANSPOSED or (op == "convolution.default" and node.args[6])
        total = int((given if transposed else made).numel()) * int(weight[1:].numel())
    elif op == "addmm.default":
        total = int(made.numel()) * int(sizes[-1][0])
    else:
        total = int(made.numel()) * int(sizes[0][-1])
    batch = program.plan.inputs[0].shape[0] if program.plan.dynamic_batch and program.plan.inputs[0].shape else 1
    return total // int(batch)


def _input_types(data: bytes) -> dict[int, str]:
    """Debug handle → the type of the first operand of the XNNPACK operation, for every operation of a delegate.

    The delegate's bytes are a header and a flatbuffer; ExecuTorch's own compiler of flatbuffers turns it into JSON.
    """
    try:
        from executorch.backends.xnnpack.serialization import xnnpack_graph_serialize as serialize  # noqa: PLC0415
        from executorch.exir._serialize._flatbuffer import _flatc_decompile  # noqa: PLC0415

        length = serialize.XNNHeader.EXPECTED_LENGTH
        header = serialize.XNNHeader.from_bytes(data[:length])
        body = data[header.flatbuffer_offset : header.flatbuffer_offset + header.flatbuffer_size]
        schema = files("executorch.backends.xnnpack.serialization").joinpath("schema.fbs").read_bytes()
        with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
            root = Path(folder)
            (root / "schema.fbs").write_bytes(schema)
            (root / "graph.bin").write_bytes(body)
            _flatc_decompile(folder, str(root / "schema.fbs"), str(root / "graph.bin"), ["--raw-binary"])
            text = (root / "graph.json").read_text()
        # Limits that are infinite are written as C does.
        graph = json.loads(re.sub(r"(?<=[\s:\[,])(-?)inf\b", r"\1Infinity", re.sub(r":\s*-?nan\b", ": NaN", text)))
    except Exception as error:
        raise BackendError("The XNNPACK graph of the program cannot be read.", got=error) from error
    values = {}
    for value in graph["xvalues"]:
        union = value["xvalue_union"]
        tensor = union.get("tensor_value", union)
        values[tensor["id_out"]] = _TYPES.get(tensor["datatype"], tensor["datatype"])
    found = {}
    for node in graph["xnodes"]:
        union = node["xnode_union"]
        source = union.get("input1_id", union.get("input_id"))
        found[node["debug_handle"]] = values.get(source, "")
    return found
