"""Which share of a graph's multiplications is planned in int8."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from edgeopt.core.measurement import Measurement, not_measured
from edgeopt.graph.facts import infer_at_batch_1, is_dequantized, node_macs
from edgeopt.graph.io import load_onnx

__all__ = ["int8_macs_pct", "planned_nodes"]

_NAME = "int8_macs_pct"
_HOW = "planned in the graph, not read from the runtime"
_UNCOUNTED = ("MatMulNBits", "GRU", "LSTM", "RNN")


def int8_macs_pct(path: Path) -> Measurement:
    """Percent of the multiply-accumulates whose both operands come out of DequantizeLinear, or are integers; for one sample.

    Weight-only layers compute in float and do not count. A runtime may still run a planned op in float.

    Raises:
        GraphError: The file cannot be read.
    """
    model = load_onnx(path)
    infer_at_batch_1(model)
    planned = total = 0
    for node in model.graph:
        macs = node_macs(node)
        if macs is None:
            if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul", *_UNCOUNTED):
                return not_measured(_NAME, "%", f"the multiplications of {_named(node)} cannot be counted")
            continue
        total += macs
        planned += macs if _is_planned(node) else 0
    if not total:
        return not_measured(_NAME, "%", "the graph has no convolution and no matrix product")
    return Measurement(
        name=_NAME, value=100 * planned / total, unit="%", conditions={"how": _HOW, "source": "plan", "macs": total}
    )


def planned_nodes(path: Path) -> frozenset[str]:
    """Names of the nodes that multiply and whose both operands come out of DequantizeLinear, or are integers.

    Raises:
        GraphError: The file cannot be read.
    """
    products = ("Conv", "ConvTranspose", "Gemm", "MatMul", "MatMulIntegerToFloat")
    return frozenset(
        node.name for node in load_onnx(path).graph if node.name and node.op_type in products and _is_planned(node)
    )


def _is_planned(node: ir.Node) -> bool:
    return node.op_type == "MatMulIntegerToFloat" or all(is_dequantized(value) for value in node.inputs[:2])


def _named(node: ir.Node) -> str:
    return f"{node.op_type} {node.name or node.outputs[0].name}"
