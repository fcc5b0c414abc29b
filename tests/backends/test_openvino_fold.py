"""OpenVINO's folding: a smaller IR that executes the same, 4-bit weights that stay small, attention as it was."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from coverage_nets import Net, conv_layer, linear_layer

from edgeopt.agent.runners.openvino import compile_properties, import_openvino
from edgeopt.backends.graphs import read_graph
from edgeopt.backends.openvino_fold import fold, unindent
from edgeopt.graph.passes.pack_int4 import PackInt4
from edgeopt.graph.qdq import BITS_KEY

pytest.importorskip("openvino", reason="pip install 'edgeopt[openvino]'")


def conv_chain():
    net = Net()
    value = net.add("Relu", [conv_layer(net, net.grid("x"), "c")], "r")
    return net.model(net.add("GlobalAveragePool", [conv_layer(net, net.grid(value), "d")], "y"))


def narrow_conv():
    """Its weights fit in 4 bits, and are packed."""
    net = Net()
    net.constant("c_weight", net.rng.integers(-7, 8, (16, 16, 3, 3)).astype("int8"))
    made = ir.serde.deserialize_model(net.model(conv_layer(net, net.grid("x"), "c")))
    made.graph.node("Conv:c").metadata_props[BITS_KEY] = "4"
    return ir.serde.serialize_model(PackInt4()(made).model)


def attention():
    net = Net((1, 16, 16))
    value = net.add("Softmax", [net.add("MatMul", ["x", "x"], "scores")], "shares")
    return net.model(linear_layer(net, net.grid(value), "m"))


def opened(path):
    return import_openvino().Core().read_model(str(path))


def executed(model, x):
    compiled = import_openvino().Core().compile_model(model, "CPU", compile_properties({}, 1))
    ops = [op.get_rt_info() for op in compiled.get_runtime_model().get_ordered_ops()]
    return compiled([x])[0], Counter((op["layerType"].value, op["runtimePrecision"].value) for op in ops)


@pytest.mark.parametrize("build", [conv_chain, narrow_conv])
def test_what_is_executed_stays_and_the_ir_shrinks(save, build):
    path = save(build())
    plain, folded = opened(path), opened(path)
    fold(folded, read_graph(path))
    x = np.random.default_rng(1).normal(size=(1, 16, 12, 12)).astype("float32")
    before, ops_before = executed(plain, x)
    after, ops_after = executed(folded, x)
    np.testing.assert_array_equal(before, after)
    assert ops_before == ops_after
    assert len(folded.get_ops()) < 0.7 * len(plain.get_ops())


def test_packed_weights_stay_packed(save, tmp_path):
    path = save(narrow_conv())
    weights = next(t for t in onnx.load(path).graph.initializer if t.data_type == onnx.TensorProto.INT4)
    model = opened(path)
    fold(model, read_graph(path))
    import_openvino().save_model(model, tmp_path / "model.xml", compress_to_fp16=False)
    assert weights.raw_data in (tmp_path / "model.bin").read_bytes()
    assert "DisableConstantFolding" not in (tmp_path / "model.xml").read_text()


def test_attention_is_left_as_it_was(save):
    path = save(attention())
    model = opened(path)
    before = [op.get_type_name() for op in model.get_ordered_ops()]
    fold(model, read_graph(path))
    assert [op.get_type_name() for op in model.get_ordered_ops()] == before


def test_the_limits_of_a_grid_are_one_constant_per_number(save):
    path = save(conv_chain())
    model = opened(path)
    fold(model, read_graph(path))
    limits = [
        node.input_value(index).get_node()
        for node in model.get_ordered_ops()
        if node.get_type_name() == "FakeQuantize"
        for index in range(1, 5)
    ]
    numbers = [(tuple(limit.get_output_shape(0)), limit.data.tobytes()) for limit in limits]
    assert len({limit.get_friendly_name() for limit in limits}) == len(set(numbers)) < len(limits)


def test_an_ir_without_indentation_is_the_same_model(save, tmp_path):
    path = save(conv_chain())
    model = opened(path)
    model.get_ordered_ops()[-1].set_friendly_name('a > b & "c"\n d')
    xml = tmp_path / "model.xml"
    import_openvino().save_model(model, xml, compress_to_fp16=False)
    before, size = opened(xml), xml.stat().st_size
    unindent(xml)
    after = opened(xml)
    assert xml.stat().st_size < 0.9 * size
    assert b">\n<" not in xml.read_bytes().partition(b"?>")[2].lstrip()
    x = np.random.default_rng(1).normal(size=(1, 16, 12, 12)).astype("float32")
    np.testing.assert_array_equal(executed(before, x)[0], executed(after, x)[0])
    names = [[op.get_friendly_name() for op in read.get_ordered_ops()] for read in (before, after)]
    assert names[0] == names[1]
