"""Layers put back in float read the tensors themselves, and nothing else changes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgeopt.core.errors import GraphError
from edgeopt.graph.qdq import NODE_KEY
from edgeopt.graph.unquantize import unquantize


def quantizers(path):
    return [node.op_type for node in onnx.load(path).graph.node].count("QuantizeLinear")


def layers(path):
    found = {}
    for node in onnx.load(path).graph.node:
        for prop in node.metadata_props:
            if prop.key == NODE_KEY:
                found[prop.value] = node
    return found


def sqnr_db(reference, other):
    reference, other = (np.asarray(x, np.float64) for x in (reference, other))
    return 10 * np.log10((reference**2).sum() / ((reference - other) ** 2).sum())


def test_every_layer_in_float_leaves_only_the_rounding_of_the_weights(case, run, tmp_path):
    net = case("resnet")
    path = tmp_path / "float.onnx"
    unquantize(net.int8_path, path, list(layers(net.int8_path)))
    x = {net.inputs[0].name: net.samples}
    exact, int8, back = (next(iter(run(p, x).values())) for p in (net.float_path, net.int8_path, path))
    assert quantizers(path) == 0
    assert sqnr_db(exact, back) > sqnr_db(exact, int8)


def test_one_layer_in_float_leaves_the_others_on_their_grids(case, run, tmp_path):
    net = case("resnet")
    before = layers(net.int8_path)
    name = list(before)[1]
    path = tmp_path / "one.onnx"
    unquantize(net.int8_path, path, [name])
    after = layers(path)
    made_by = {out: node.op_type for node in onnx.load(path).graph.node for out in node.output}
    assert made_by.get(after[name].input[0]) != "DequantizeLinear"
    for other in before:
        if other != name:
            assert made_by.get(after[other].input[0]) == "DequantizeLinear", other
    x = {net.inputs[0].name: net.samples}
    int8, mixed = (next(iter(run(p, x).values())) for p in (net.int8_path, path))
    assert sqnr_db(int8, mixed) > 15


def test_a_layer_that_is_not_there_is_an_error(case, tmp_path):
    with pytest.raises(GraphError, match="None of the layers is in the graph"):
        unquantize(case("resnet").int8_path, tmp_path / "none.onnx", ["nowhere"])
