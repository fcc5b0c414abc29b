"""Layer by layer: what quantization cost each weighted layer's output."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from edgeopt.core.errors import GraphError
from edgeopt.graph.io import load_onnx
from edgeopt.graph.qdq import NODE_KEY, array_of, weighted_nodes
from edgeopt.graph.taps import RunOnnx, samples_at_a_time, tapped

__all__ = ["LayerSqnr", "layer_nodes", "layer_sqnr"]

_SAMPLES = 8  # of the first run: all layers' outputs are in memory at once
_ROOM = 256 * 2**20  # bytes of outputs in the further ones
_ENOUGH = 2**30  # bytes of outputs: of a net with so large ones some samples say as much as all


@dataclass(frozen=True, slots=True)
class LayerSqnr:
    """SQNR of each layer.

    Attributes:
        decibels: The layer's name → dB; infinity where both are identical.
        samples: How many it was taken on.
    """

    decibels: Mapping[str, float]
    samples: int


def layer_sqnr(float_onnx: Path, int8_onnx: Path, inputs: Mapping[str, np.ndarray], run: RunOnnx) -> LayerSqnr:
    """SQNR of each weighted layer's output (bias and folded BatchNorm included), int8 graph against float graph.

    Layers are paired in order; their weights must have the same shapes.

    Args:
        float_onnx: The float graph, and ``int8_onnx`` the quantized one, of the same program.
        inputs: One array [N, …] per graph input; a few at a time are run, of graphs with large values not all.
        run: Runs an ONNX file.

    Returns:
        By the layer's name: that of its fx node in the program that ``int8_onnx`` was exported from (metadata
        ``edgeopt.node``), which is what compress's ``LayerDecision.node`` holds; in a graph that edgeopt did not export,
        the output value's.

    Raises:
        GraphError: The two graphs do not have the same layers.
    """
    before, after = load_onnx(float_onnx), load_onnx(int8_onnx)
    layers, quantized = _layers(before), _layers(after)
    if [shape for _, _, shape in layers] != [shape for _, _, shape in quantized]:
        raise GraphError(
            "The float and the int8 graph do not have the same weighted layers.",
            got=f"{len(layers)} and {len(quantized)}: {_first_other(layers, quantized)}",
            fix="Export both from the same program.",
        )
    signal, noise = np.zeros(len(layers)), np.zeros(len(layers))
    is_open = samples_at_a_time(before, 0) == 0
    wanted = [[output for _, output, _ in each] for each in (layers, quantized)]
    with tapped(before, wanted[0]) as one, tapped(after, wanted[1]) as other:
        start, size, seen = 0, samples_at_a_time(before, _SAMPLES), 0
        count = min(len(array) for array in inputs.values())
        last = count if is_open or count < size else count - count % size
        while start < last and seen < _ENOUGH:
            few = {name: array[start : start + size] for name, array in inputs.items()}
            expected, actual = run(one, few), run(other, few)
            for index, (mine, theirs) in enumerate(zip(*wanted, strict=True)):
                reference = expected[mine].ravel()
                difference = reference - actual[theirs].ravel()
                signal[index] += np.dot(reference, reference)
                noise[index] += np.dot(difference, difference)
            start += len(next(iter(few.values())))
            these = sum(values.nbytes for values in (*expected.values(), *actual.values()))
            seen += these
            if is_open:  # each run opens the graph anew: as many samples as the room allows
                size = max(size, int(_ROOM * size // max(these, 1)))
    return LayerSqnr({name: _decibel(signal[i], noise[i]) for i, (name, _, _) in enumerate(quantized)}, start)


def layer_nodes(path: Path) -> dict[str, str]:
    """The fx node that each weighted ONNX node came from, by the name of the node (of its output where it has none).

    Raises:
        GraphError: The file cannot be read.
    """
    nodes = ((node, node.metadata_props.get(NODE_KEY)) for node in load_onnx(path).graph)
    return {node.name or node.outputs[0].name or "": fx for node, fx in nodes if fx}


def _layers(model: ir.Model) -> list[tuple[str, str, tuple[int, ...]]]:
    """Name, output value and sorted weight shape of each weighted layer, in topological order."""
    layers, names = [], set()
    for node, weight, _ in weighted_nodes(model.graph):
        output = _behind_bias(node).name or ""
        name = node.metadata_props.get(NODE_KEY, output)
        name = output if name in names else name
        names.add(name)
        layers.append((name, output, tuple(sorted(weight.shape))))
    return layers


def _behind_bias(node: ir.Node) -> ir.Value:
    """The layer's output: past an Add of a constant vector, or past a BatchNorm."""
    value = node.outputs[0]
    readers = value.consumers()
    if len(readers) != 1 or value.is_graph_output():
        return value
    reader = readers[0]
    if node.op_type == "MatMul" and reader.op_type == "Add":
        bias = [array_of(other) for other in reader.inputs if other is not value]
        if bias and bias[0] is not None and bias[0].ndim == 1:
            return reader.outputs[0]
    return reader.outputs[0] if reader.op_type == "BatchNormalization" else value


def _decibel(signal: float, noise: float) -> float:
    return math.inf if noise == 0 else 10 * (math.log10(max(signal, 1e-300)) - math.log10(noise))


def _first_other(one: list[tuple[str, str, tuple[int, ...]]], other: list[tuple[str, str, tuple[int, ...]]]) -> str:
    pairs = zip(one, other, strict=False)
    return next((f"{a[0]} {a[2]}, {b[0]} {b[2]}" for a, b in pairs if a[2] != b[2]), "one has more")
