"""What LiteRT runs each product in, read from the file by its own interpreter, and what XNNPACK takes of it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeopt.agent.runners.litert import import_litert
from edgeopt.agent.runners.quiet import quietly
from edgeopt.backends.torch_program.build import TorchProgram
from edgeopt.backends.torch_program.placement import NOT_PLANNED, fix_of
from edgeopt.core.coverage import INT8, Coverage, ExecutedOp
from edgeopt.core.errors import BackendError

__all__ = ["read_file"]

_STEP = re.compile(r"\.Step_(\d+)")
_PRODUCTS = ("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_3D", "FULLY_CONNECTED", "BATCH_MATMUL", "TRANSPOSE_CONV")
# Operations that move values, or put them on a grid: they say nothing of where the work is done.
_QUIET = ("DELEGATE", "QUANTIZE", "DEQUANTIZE", "RESHAPE")
_XNNPACK, _BUILTIN = "XNNPACK", "built-in kernels"


def read_file(
    path: Path, program: TorchProgram, causes: Mapping[str, str], version: str
) -> tuple[Coverage, dict[str, str]]:
    """Every product of the file, and the operations that XNNPACK leaves: ONNX node → LiteRT's operator.

    Args:
        causes: Node → why it was written in float though its weight is quantized.

    Raises:
        BackendError: The interpreter refuses the file.
    """
    try:
        with quietly():
            interpreter = import_litert().Interpreter(model_path=str(path), num_threads=1)
            interpreter.allocate_tensors()
            ops = [dict(op) for op in interpreter._get_ops_details()]  # noqa: SLF001 (nothing public lists them)
            tensors = {one["index"]: one for one in interpreter.get_tensor_details()}
    except Exception as error:
        raise BackendError("LiteRT cannot open the file that its converter wrote.", got=error) from error
    inside = _delegated(ops)
    executed, outside = [], {}
    places = {node.name: index for index, node in enumerate(program.plan.nodes)}
    for place, op in enumerate(ops):
        name = _node(op, tensors, program)
        where = _XNNPACK if place in inside else _BUILTIN
        if op["op_name"] in _PRODUCTS:
            executed.append(_executed(op, name, tensors=tensors, program=program, where=where, causes=causes))
        if place not in inside and op["op_name"] not in _QUIET:
            outside[name or f"{op['op_name'].lower()} {place}"] = op["op_name"]
    ordered = tuple(sorted(executed, key=lambda one: places.get(one.node, len(places))))
    how = f"the file as LiteRT {version} opens it on this machine"
    return Coverage(ops=ordered, how=how), outside


def _delegated(ops: list[dict[str, Any]]) -> set[int]:
    """The places of the operations that stand inside a delegate: all that lead to its outputs from its inputs."""
    makers = {int(out): place for place, op in enumerate(ops) if op["op_name"] != "DELEGATE" for out in op["outputs"]}
    inside: set[int] = set()
    for op in ops:
        if op["op_name"] != "DELEGATE":
            continue
        given = {int(index) for index in op["inputs"]}
        waiting = [int(index) for index in op["outputs"]]
        while waiting:
            place = makers.get(waiting.pop())
            if place is not None and place not in inside:
                inside.add(place)
                waiting += [int(index) for index in ops[place]["inputs"] if int(index) not in given]
    return inside


def _node(op: Mapping[str, Any], tensors: Mapping[int, Any], program: TorchProgram) -> str:
    """The ONNX node, by the step that LiteRT's tensors are named after; of a product the weight's name is the surest."""
    indices = [int(index) for index in (*op["inputs"][1:2], *op["outputs"], *op["inputs"])]
    steps = [found for index in indices for found in _steps(tensors, index)]
    nodes = [program.plan.nodes[step] for step in steps if step < len(program.plan.nodes)]
    if op["op_name"] in _PRODUCTS:
        nodes = [node for node in nodes if node.op in ("Conv", "ConvTranspose", "Gemm", "MatMul")] or nodes
    return nodes[0].name if nodes else ""


def _steps(tensors: Mapping[int, Any], index: int) -> Iterator[int]:
    if index in tensors:
        yield from (int(number) for number in _STEP.findall(tensors[index]["name"])[-1:])


def _executed(
    op: Mapping[str, Any],
    name: str,
    *,
    tensors: Mapping[int, Any],
    program: TorchProgram,
    where: str,
    causes: Mapping[str, str],
) -> ExecutedOp:
    data = 2 if op["op_name"] == "TRANSPOSE_CONV" else 0
    kinds = {np.dtype(tensors[int(op["inputs"][index])]["dtype"]).name for index in (data, 1)}
    kind = kinds.pop() if len(kinds) == 1 else "float32"  # an int8 weight with float data is computed in float
    onnx = next((node.op for node in program.plan.nodes if node.name == name), op["op_name"])
    cause = causes.get(name, "")
    if not cause and kind != INT8:
        planned = name in program.plan.graph.quantized
        cause = "LiteRT's converter wrote it in float" if planned else NOT_PLANNED
    macs = _macs(op, tensors, program)
    return ExecutedOp(
        node=name or op["op_name"], op=onnx, macs=macs, runs_in=kind, where=where, cause=cause, fix=fix_of(cause)
    )


def _macs(op: Mapping[str, Any], tensors: Mapping[int, Any], program: TorchProgram) -> int:
    """For one sample, from the sizes in the file: filters are [out, height, width, in], depthwise [1, height, width, out]."""
    shapes = [[int(dim) for dim in tensors[int(i)]["shape"]] if int(i) in tensors else [] for i in op["inputs"]]
    made = math.prod(int(dim) for dim in tensors[int(op["outputs"][0])]["shape"])
    kind = op["op_name"]
    if kind == "DEPTHWISE_CONV_2D":
        total = made * math.prod(shapes[1][1:3])
    elif kind == "TRANSPOSE_CONV":
        total = math.prod(shapes[2]) * math.prod(shapes[1][:3])
    elif kind == "CONV_3D":  # [depth, height, width, in, out]
        total = made * math.prod(shapes[1][:4])
    elif kind == "BATCH_MATMUL":
        total = math.isqrt(math.prod(shapes[0]) * math.prod(shapes[1]) * made // math.prod(shapes[0][:-2] or [1]))
    else:
        total = made * math.prod(shapes[1][1:])
    batch = program.plan.inputs[0].shape[0] if program.plan.dynamic_batch and program.plan.inputs[0].shape else 1
    return total // int(batch)
