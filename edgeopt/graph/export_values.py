"""What torch computes at every node, under the names that the exporter gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgeopt.core.spec import TensorSpec
from edgeopt.graph.export import run_exporter

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node

__all__ = ["torch_values"]


def torch_values(
    program: ExportedProgram, inputs: Sequence[np.ndarray], outputs: Sequence[str], *, opset: int
) -> dict[str, tuple[np.ndarray, str]]:
    """Run ``program`` node by node, after the decompositions that its ONNX export at ``opset`` went through.

    Args:
        inputs: One array per input, in order.
        outputs: The names of the ONNX graph's outputs.

    Returns:
        Node name → (float32 value, path of the module it belongs to). Graph outputs have the names in ``outputs``.
    """
    decomposed = _decompose(program, len(inputs), outputs, opset)
    values: dict[str, tuple[np.ndarray, str]] = {}

    class Watch(torch.fx.Interpreter):
        def run_node(self, n: Node) -> Any:
            result = super().run_node(n)
            if isinstance(result, torch.Tensor) and result.dtype == torch.float32 and n.op == "call_function":
                values[n.name] = result.detach().numpy().copy(), _module(n)
            return result

    module = decomposed.module()
    with torch.no_grad():
        Watch(module).run(*(torch.from_numpy(np.ascontiguousarray(array)) for array in inputs))
    for name, node in zip(outputs, decomposed.graph_signature.user_outputs, strict=True):
        if node in values:
            values[name] = values.pop(str(node)) if node not in outputs else values[str(node)]
    return values


def _decompose(program: ExportedProgram, inputs: int, outputs: Sequence[str], opset: int) -> ExportedProgram:
    def spec(name: str) -> TensorSpec:
        return TensorSpec(name=name, dtype="float32", shape=())

    names = [spec(f"input_{index}") for index in range(inputs)]
    return run_exporter(program, names, [spec(name) for name in outputs], opset=opset, simplify=False)[1]


def _module(node: Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    paths = [str(path) for path, _ in stack.values() if path]
    return paths[-1] if paths else ""
