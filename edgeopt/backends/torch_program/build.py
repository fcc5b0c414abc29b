"""The program: every ONNX node as a step, run once to settle its constants, then exported."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn
from torch.export import ExportedProgram

from edgeopt.backends.torch_program.graph import Node, Plan, read_plan
from edgeopt.backends.torch_program.table import CONSTANT_OPS, builder, unknown
from edgeopt.backends.torch_program.values import QuantizedConstant, QuantizedTensor, Step, Value, torch_dtype
from edgeopt.core.errors import BackendError
from edgeopt.core.spec import TensorSpec

__all__ = ["GraphModule", "TorchProgram", "build_module", "build_program", "node_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchProgram:
    """An ONNX graph as a torch program.

    Attributes:
        module: In eval mode; called with one tensor per input, in the graph's order, it gives a tuple of the outputs.
        exported: The module as ``torch.export`` writes it, at fixed sizes.
        plan: What it was built from.
        outputs: With their fixed shapes.
        example: One tensor of zeros per input.
        names: ONNX node names by the step's number, which ``node_of`` finds in a compiler's graph.
    """

    module: nn.Module
    exported: ExportedProgram
    plan: Plan
    outputs: tuple[TensorSpec, ...]
    example: tuple[Tensor, ...]
    names: tuple[str, ...]


def build_program(
    path: Path, batch: int, runtime: str, *, stays_float: Collection[str] = (), weights: str = "integer"
) -> TorchProgram:
    """Write the ONNX graph ``path`` as a torch program.

    Args:
        batch: What a dynamic first dimension is fixed to.
        runtime: The runtime's name, as an error says it.
        stays_float: Nodes whose quantized weight is written as the float numbers that it stands for.
        weights: How the others are written: ``integer`` or ``rounded`` (see ``Step``).

    Raises:
        BackendError: The file cannot be read, or a node cannot be written in torch; the node is named.
    """
    module, example, given = build_module(path, batch, runtime, stays_float=stays_float, weights=weights)
    plan = module.plan
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exported = torch.export.export(module, example, strict=False)
    except Exception as error:
        raise _refused(module, error) from error
    outputs = tuple(
        TensorSpec(name=spec.name, dtype=spec.dtype, shape=tuple(value.shape))
        for spec, value in zip(plan.outputs, given, strict=True)
    )
    names = tuple(node.name for node in plan.nodes)
    return TorchProgram(module=module, exported=exported, plan=plan, outputs=outputs, example=example, names=names)


def build_module(
    path: Path, batch: int, runtime: str, *, stays_float: Collection[str] = (), weights: str = "integer"
) -> tuple[GraphModule, tuple[Tensor, ...], tuple[Tensor, ...]]:
    """The module, an example of its inputs (zeros), and its outputs for that; see ``build_program``."""
    plan = read_plan(path, batch, runtime)
    if strangers := unknown(node.op for node in plan.nodes):
        raise BackendError(
            f"{runtime} cannot be given this graph.",
            got=f"operators that edgeopt does not write in torch: {', '.join(strangers)}",
            fix="Compile for a runtime that reads ONNX: onnxruntime or openvino.",
        )
    example = tuple(
        torch.zeros([int(dim) for dim in spec.shape], dtype=torch_dtype(spec.dtype)) for spec in plan.inputs
    )
    module = GraphModule(plan, frozenset(stays_float), weights).eval()
    try:
        with torch.no_grad():
            return module, example, module(*example)
    except BackendError:
        raise
    except Exception as error:
        raise _refused(module, error) from error


def node_of(program: TorchProgram, meta: Mapping[str, Any]) -> str | None:
    """The ONNX node that a compiler's fx node came from, by its metadata; None where it was added on the way."""
    for path, _ in reversed(list((meta.get("nn_module_stack") or {}).values())):
        head, _, number = str(path).rpartition(".")
        if head.endswith("steps") and number.isdigit():
            return program.names[int(number)]
    return None


class GraphModule(nn.Module):
    """The interpreter. Sizes are NumPy values, computed while the program is traced and not part of it."""

    def __init__(self, plan: Plan, stays_float: Collection[str], weights: str) -> None:
        super().__init__()
        self.plan = plan
        self.at: Node | None = None  # where it stands, for the error
        self.steps = nn.ModuleList(
            _step(node, plan.opset, "float" if node.name in stays_float else weights) for node in plan.nodes
        )
        self.last = Step("output", None, {}, 1, opset=plan.opset)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """One tensor per output."""
        plan = self.plan
        values: dict[str, Any] = dict(plan.constants)
        values |= {spec.name: value for spec, value in zip(plan.inputs, inputs, strict=True)}
        for node, step in zip(plan.nodes, self.steps, strict=True):
            self.at = node
            given: list[Value] = [values[name] if name else None for name in node.inputs]
            made = _evaluate(node, given, plan.opset) if _is_constant(node, given) else step(*given)
            made = made if isinstance(made, tuple) else (made,)
            values |= {name: value for name, value in zip(node.outputs, made, strict=False) if name}
        self.at = None
        handed = {id(value) for value in inputs}
        return tuple(self._output(values[spec.name], index, handed) for index, spec in enumerate(plan.outputs))

    def _output(self, value: Any, index: int, handed: Collection[int]) -> Tensor:
        if isinstance(value, QuantizedTensor):  # it has no step of its own to belong to
            return value.to_float(self.last, f"output_{index}")
        if isinstance(value, Tensor):
            return value.clone() if id(value) in handed else value  # compilers refuse an input that is an output
        key = f"output_{index}"
        if key not in self._buffers:
            self.register_buffer(key, torch.tensor(value.to_float() if isinstance(value, QuantizedConstant) else value))
        return self.get_buffer(key).clone()


def _refused(module: GraphModule, error: Exception) -> BackendError:
    at = module.at.name if module.at else "the outputs"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return BackendError("The ONNX graph cannot be written as a torch program.", got=f"at {at!r}: {lines[0]}")


def _step(node: Node, opset: int, weight: str) -> Step:
    op = None if node.op in CONSTANT_OPS else builder(node.op)
    read = sum(map(bool, node.outputs))
    return Step(node.name, op, node.attributes, read, opset=opset, weight=weight)


def _is_constant(node: Node, given: list[Value]) -> bool:
    if node.op == "DequantizeLinear":  # it stays as it is stored, for the operation that reads it
        return False
    if node.op in CONSTANT_OPS and any(isinstance(value, Tensor) for value in given):
        raise BackendError("A size of the graph depends on its data.", got=f"{node.op} {node.name!r}")
    return all(value is None or isinstance(value, np.ndarray) for value in given)


def _evaluate(node: Node, given: list[Value], opset: int) -> tuple[np.ndarray, ...]:
    feeds = {name: value for name, value in zip(node.inputs, given, strict=True) if name}
    made = ReferenceEvaluator(node.proto, opsets={"": opset}).run(None, feeds)
    return tuple(np.asarray(value) for value in made)
