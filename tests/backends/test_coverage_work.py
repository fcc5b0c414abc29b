"""Which node a timed kernel computes, under the names that the runtimes give it."""

from __future__ import annotations

import numpy as np
import pytest
from coverage_nets import Net, conv_layer, linear_layer

from edgeopt.backends.coverage.work import computed_nodes

EYE = np.eye(16, dtype="float32")


def kernel(op, *names, primitive=None):
    return {"names": list(names), "op": op, "kernel": primitive or op, "us": 1.0, "bytes": 1, "weights": True}


@pytest.fixture
def graph(save):
    net = Net()
    first = conv_layer(net, net.grid("x"), "c")
    second = net.add("Relu", [conv_layer(net, net.grid(first), "d")], "r")
    return save(net.model(second))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (kernel("QLinearConv", "Conv:c_token_4"), ("Conv:c", "int8")),
        (kernel("Conv", "r_nchwc"), ("Conv:d", "float32")),
        (kernel("FusedConv", "Conv:d"), ("Conv:d", "float32")),
        (kernel("Relu", "Relu:r"), ("", "")),
        (kernel("Convolution", "Conv:c", "QuantizeLinear:c_q", primitive="brgconv_avx512_amx_I8"), ("Conv:c", "int8")),
        (kernel("Convolution", "Conv:c/WithoutBiases", primitive="brgconv_avx512_f32"), ("Conv:c", "float32")),
        (kernel("Reorder", "Conv:c", primitive="jit_uni_f32"), ("", "")),
        (kernel("Conv", "unheard_of"), ("", "")),
    ],
    ids=lambda value: value["op"] if isinstance(value, dict) else "",
)
def test_a_kernel_is_told_by_its_name_and_what_it_multiplies_in_by_its_kind(graph, row, expected):
    assert computed_nodes(graph, [row]) == [expected]


def test_one_node_is_computed_once(graph):
    rows = [kernel("QLinearConv", "Conv:c"), kernel("QLinearConv", "Conv:c_token_1")]
    assert computed_nodes(graph, rows) == [("Conv:c", "int8"), ("", "")]


def test_products_too(save):
    net = Net(shape=(1, 8, 16))
    path = save(net.model(linear_layer(net, net.grid("x"), "l")))
    assert computed_nodes(path, [kernel("MatMulIntegerToFloat", "MatMul:l")]) == [("MatMul:l", "int8")]


def test_where_the_file_names_no_nodes_their_order_tells(save):
    net = Net(shape=(1, 8, 16))
    model = net.model(net.add("MatMul", [net.add("MatMul", ["x", net.constant("w", EYE)], "l"), "w"], "m"))
    for node in model.graph.node:
        node.name = ""
    assert computed_nodes(save(model), [kernel("MatMul", "MatMul_0"), kernel("MatMul", "MatMul_1")]) == [
        ("l", "float32"),
        ("m", "float32"),
    ]
