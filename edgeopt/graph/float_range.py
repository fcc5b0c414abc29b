"""What a graph's float values reach on real data, against what a narrower float type can hold.

The extremes are taken inside the graph (ReduceMax of Abs, one number per value): memory does not grow with the values.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir as ir

from edgeopt.graph.io import load_onnx, save_onnx
from edgeopt.graph.qdq import add_initializer
from edgeopt.graph.taps import RunOnnx, float_values

__all__ = ["BFLOAT16", "FLOAT16", "NarrowFloat", "Reach", "float_reach"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NarrowFloat:
    """A float type of 16 bits.

    Attributes:
        name: As NumPy and ONNX's schemas have it.
        dtype: ONNX's.
        largest: Its largest finite number.
        to_zero: Half of its smallest number: what is smaller rounds to zero.
        opset: The first at which ONNX defines convolutions and pools for it.
    """

    name: Literal["float16", "bfloat16"]
    dtype: ir.DataType
    largest: float
    to_zero: float
    opset: int


FLOAT16 = NarrowFloat(name="float16", dtype=ir.DataType.FLOAT16, largest=65504.0, to_zero=2.0**-25, opset=1)
BFLOAT16 = NarrowFloat(
    name="bfloat16", dtype=ir.DataType.BFLOAT16, largest=2.0**127 * (2 - 2.0**-7), to_zero=2.0**-134, opset=22
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """One value, over all samples seen.

    Attributes:
        largest: Its largest magnitude.
        lost: Share of its elements, in [0, 1], that are not zero and round to zero in the narrow type.
    """

    largest: float
    lost: float


def float_reach(
    path: Path, batches: Iterable[Mapping[str, np.ndarray]], run: RunOnnx, narrow: NarrowFloat = FLOAT16
) -> dict[str, Reach]:
    """The reach of every float32 value that a node makes, and of every float32 input, by name.

    Args:
        path: A graph that computes in float32; it is not changed.
        batches: Name → array per graph input; each in the graph's own batch, where that is fixed.
        run: Runs an ONNX file.
        narrow: The type that is to hold them.
    """
    model = load_onnx(path)
    names = _watch(model, narrow.to_zero)
    largest, lost, count = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0), 0
    with tempfile.TemporaryDirectory(prefix="edgeopt-") as folder:
        file = Path(folder) / "watched.onnx"
        save_onnx(model, file)
        for inputs in batches:
            rows, outputs = len(next(iter(inputs.values()))), run(file, inputs)
            for name, (top, share) in names.items():
                largest[name] = max(largest[name], float(outputs[top]))
                lost[name] += float(outputs[share]) * rows
            count += rows
    return {name: Reach(largest=largest[name], lost=lost[name] / max(count, 1)) for name in names}


def _watch(model: ir.Model, to_zero: float) -> dict[str, tuple[str, str]]:
    """Add two numbers per float value to the outputs, in place of the graph's own; the names of both, by value."""
    graph = model.graph
    inputs = [value for value in graph.inputs if value.dtype == ir.DataType.FLOAT and not value.is_initializer()]
    values = [*inputs, *float_values(model)]
    zero = add_initializer(graph, "edgeopt_zero", np.array(0, np.float32))
    tiny = add_initializer(graph, "edgeopt_tiny", np.array(to_zero, np.float32))
    graph.outputs.clear()
    names: dict[str, tuple[str, str]] = {}
    for value in values:
        size = _node(graph, "Abs", [value], f"{value.name}_abs")
        top = _node(graph, "ReduceMax", [size], f"{value.name}_largest", keepdims=0)
        small = _node(graph, "Less", [size, tiny], f"{value.name}_small")
        used = _node(graph, "Greater", [size, zero], f"{value.name}_used")
        both = _node(graph, "And", [small, used], f"{value.name}_both")
        number = _node(graph, "Cast", [both], f"{value.name}_number", to=ir.DataType.FLOAT.value)
        share = _node(graph, "ReduceMean", [number], f"{value.name}_lost", keepdims=0)
        for made in (top, share):
            made.type, made.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([])
            graph.outputs.append(made)
        names[str(value.name)] = str(top.name), str(share.name)
    return names


def _node(graph: ir.Graph, op_type: str, inputs: list[ir.Value], name: str, **attributes: int) -> ir.Value:
    node = ir.node(op_type, inputs, attributes, num_outputs=1, name=f"edgeopt:{name}")
    node.outputs[0].name = f"edgeopt:{name}"
    graph.append(node)
    return node.outputs[0]
