"""Chosen layers of a quantized graph back in float, everything else as it was: what a layer's int8 gains in time.

The values are those of the int8 weights; a graph made here is timed, never shipped.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from edgeopt.core.errors import GraphError
from edgeopt.graph.io import load_onnx, save_checked
from edgeopt.graph.qdq import NODE_KEY, array_of, new_initializer

__all__ = ["unquantize"]

# They are in float where what feeds them is: pools always, an addition where a weighted layer feeds it.
_POOLS = ("ReduceMean", "AveragePool", "GlobalAveragePool")
_ABSORBED = ("Relu", "Clip")
# Behind them comes an int8 layer that reads the same grid.
_MOVES = ("MaxPool", "Reshape", "Transpose", "Flatten", "Concat", "Slice", "Pad", "Squeeze", "Unsqueeze", "Identity")


def unquantize(source: Path, target: Path, nodes: Collection[str]) -> None:
    """Write the graph at ``source`` to ``target`` with some layers in float.

    Args:
        source: A portable graph, in the neutral form.
        target: The file to write.
        nodes: fx nodes of the exported program (``LayerDecision.node``) of weighted layers and matrix products;
            additions and pools behind them go along.

    Raises:
        GraphError: The graph has none of the nodes.
    """
    model = load_onnx(source)
    graph = model.graph
    pending = [node for node in graph if node.metadata_props.get(NODE_KEY) in nodes]
    if not pending:
        raise GraphError("None of the layers is in the graph.", got=", ".join(sorted(nodes)))
    done: set[ir.Node] = set()
    while pending:
        node = pending.pop()
        if node in done:
            continue
        done.add(node)
        for index in range(len(node.inputs)):
            _free_input(graph, node, index)
        pending += _free_output(node)
    RemoveUnusedNodesPass()(model)
    save_checked(model, target)


def _free_input(graph: ir.Graph, node: ir.Node, index: int) -> None:
    """Read the tensor itself in place of its Q/DQ, or the weight as float32."""
    value = node.inputs[index]
    producer = value.producer() if value is not None else None
    if producer is not None and producer.op_type == "Transpose":
        inner = producer.inputs[0]
        if inner is not None and inner.producer() is not None and array_of(_stored(inner.producer())) is not None:
            _free_input(graph, producer, 0)
        return
    if producer is None or producer.op_type != "DequantizeLinear":
        return
    stored = _stored(producer)
    if array_of(stored) is not None:
        name = f"{producer.outputs[0].name}_float"
        ready = graph.initializers.get(name)
        node.replace_input_with(index, ready or new_initializer(graph, name, _dequantized(producer)))
    elif stored is not None and (quantize := stored.producer()) is not None and quantize.op_type == "QuantizeLinear":
        node.replace_input_with(index, quantize.inputs[0])


def _free_output(node: ir.Node) -> list[ir.Node]:
    """Take away a Q/DQ behind the node that no int8 layer reads; give the followers, which lose their int8 too."""
    end = node.outputs[0]
    while len(readers := end.consumers()) == 1 and readers[0].op_type in _ABSORBED:
        end = readers[0].outputs[0]
    followers, weighted = [], NODE_KEY in node.metadata_props
    for quantize in [reader for reader in end.consumers() if reader.op_type == "QuantizeLinear"]:
        for restored in [user.outputs[0] for user in quantize.outputs[0].consumers()]:
            for use in list(restored.uses()):
                reader = use.node
                if reader.op_type in _POOLS or (reader.op_type == "Add" and weighted):
                    followers.append(reader)
                elif NODE_KEY not in reader.metadata_props and reader.op_type not in (*_MOVES, "Add"):
                    reader.replace_input_with(use.idx, end)
    return followers


def _stored(dequantize: ir.Node | None) -> ir.Value | None:
    return dequantize.inputs[0] if dequantize is not None and dequantize.op_type == "DequantizeLinear" else None


def _dequantized(node: ir.Node) -> np.ndarray:
    values, scale = array_of(node.inputs[0]), array_of(node.inputs[1])
    zero = array_of(node.inputs[2]) if len(node.inputs) > 2 else None
    if values is None or scale is None:
        raise GraphError("A weight's DequantizeLinear has no constant scale.", got=node.name)
    axis = node.attributes.get_int("axis", 1)
    if node.attributes.get_int("block_size", 0):
        scale = np.repeat(scale, values.shape[axis] // scale.shape[axis], axis)
        zero = None if zero is None else np.repeat(zero, values.shape[axis] // zero.shape[axis], axis)
    elif scale.ndim == 1 and scale.size > 1:
        shape = [-1 if i == axis % values.ndim else 1 for i in range(values.ndim)]
        scale, zero = scale.reshape(shape), None if zero is None else zero.reshape(shape)
    shifted = values.astype(np.int32) - (0 if zero is None else zero.astype(np.int32))
    return np.asarray(shifted * scale, np.float32)
