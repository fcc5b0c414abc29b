"""Float16 graphs keep their interface, and what float16 cannot hold stays float32."""

from __future__ import annotations

import collections

import numpy as np
import onnx
import pytest
from graph_nets import run_reference

from edgeopt.core.errors import GraphError
from edgeopt.graph.float16 import convert_float16

HEADER = '<ir_version: 10, opset_import: ["": 20]> '


def write(path, text, constants):
    model = onnx.parser.parse_model(HEADER + text)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in constants.items())
    onnx.save(model, path)
    return path


def types(path):
    return {i.name: onnx.TensorProto.DataType.Name(i.data_type) for i in onnx.load(path).graph.initializer}


@pytest.mark.parametrize("net", ["mlp", "vit", "resnet", "branches", "pooled"])
def test_outputs_stay_close_and_the_file_halves(case, tmp_path, net):
    net = case(net)
    result = convert_float16(net.float_path, tmp_path / "m.onnx")
    expected = run_reference(net.float_path, {"x": net.samples})["logits"]
    actual = run_reference(result.path, {"x": net.samples})["logits"]
    assert actual.dtype == np.float32
    # each of some dozen roundings is 2^-11 of its value
    np.testing.assert_allclose(actual, expected, rtol=0, atol=20 * 2**-11 * np.abs(expected).max())
    assert not np.array_equal(actual, expected)
    assert result.modified
    assert result.events == ()
    assert "FLOAT" not in types(result.path).values()


def test_inputs_and_outputs_keep_their_types_and_names(case, tmp_path):
    convert_float16(case("vit").float_path, tmp_path / "m.onnx")
    before, after = onnx.load(case("vit").float_path).graph, onnx.load(tmp_path / "m.onnx").graph
    assert list(after.input) == list(before.input)
    assert [o.name for o in after.output] == ["logits"]
    assert after.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert collections.Counter(n.op_type for n in after.node)["Cast"] == 2


def test_op_types_asked_for_stay_in_float32(case, tmp_path):
    result = convert_float16(case("mlp").float_path, tmp_path / "m.onnx", keep_float32=["Gemm"])
    # Relu between float32 layers rounds nothing but their outputs: every weight is float32
    assert set(types(result.path).values()) == {"FLOAT"}
    assert result.events == ()


def test_an_op_type_that_is_not_there_is_refused(case, tmp_path):
    with pytest.raises(GraphError, match=r"Softmaxx.*It has Gemm, Relu"):
        convert_float16(case("mlp").float_path, tmp_path / "m.onnx", keep_float32=["Softmaxx"])


def test_a_weight_beyond_float16_keeps_its_node_in_float32(tmp_path):
    text = "g (float[n, 2] x) => (float[n, 2] y) { a = Mul(x, big) y = Add(a, small) }"
    constants = {"big": np.array([1e5, 1], np.float32), "small": np.array([1, 2], np.float32)}
    source = write(tmp_path / "a.onnx", text, constants)
    result = convert_float16(source, tmp_path / "b.onnx")
    x = np.array([[0.01, 0.5]], np.float32)
    np.testing.assert_allclose(run_reference(result.path, {"x": x})["y"], [[1001, 2.5]], rtol=1e-3)
    assert [event.kind for event in result.events] == ["fallback"]
    assert "big reaches 1e+05" in result.events[0].message
    assert types(result.path) == {"big": "FLOAT", "small_float16": "FLOAT16"}


def test_an_epsilon_below_float16_keeps_its_node_in_float32(tmp_path):
    text = "g (float[n, 2] x) => (float[n, 2] y) { a = Add(x, eps) b = Sqrt(a) y = Div(x, b) }"
    source = write(tmp_path / "a.onnx", text, {"eps": np.array([1e-12], np.float32)})
    result = convert_float16(source, tmp_path / "b.onnx", keep_float32=["Sqrt", "Div"])
    assert "zero in float16" in result.events[0].message
    assert np.isfinite(run_reference(result.path, {"x": np.zeros((1, 2), np.float32)})["y"]).all()


def test_a_bias_of_next_to_nothing_is_no_obstacle(tmp_path):
    text = "g (float[n, 2] x) => (float[n, 2] y) { y = Add(x, tiny) }"
    source = write(tmp_path / "a.onnx", text, {"tiny": np.array([1e-9, 2e-9], np.float32)})
    assert convert_float16(source, tmp_path / "b.onnx").events == ()


def test_an_infinite_mask_stays_infinite(tmp_path):
    text = "g (float[n, 2] x) => (float[n, 2] y) { a = Add(x, mask) y = Softmax(a) }"
    source = write(tmp_path / "a.onnx", text, {"mask": np.array([0, -np.inf], np.float32)})
    result = convert_float16(source, tmp_path / "b.onnx")
    np.testing.assert_array_equal(run_reference(result.path, {"x": np.ones((1, 2), np.float32)})["y"], [[1, 0]])
    assert result.events == ()


def test_an_input_that_is_float32_by_definition_stays_so(tmp_path):
    text = """g (float[1, 1, 2, 2] x) => (float[1, 1, 4, 4] y) {
        a = Mul(x, k) y = Resize<mode: string = "nearest">(a, , scales) }"""
    constants = {"scales": np.array([1, 1, 2, 2], np.float32), "k": np.array([2], np.float32)}
    result = convert_float16(write(tmp_path / "a.onnx", text, constants), tmp_path / "b.onnx")
    assert types(result.path) == {"scales": "FLOAT", "k_float16": "FLOAT16"}
    x = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)
    expected = 2 * x.repeat(2, 2).repeat(2, 3)
    np.testing.assert_array_equal(run_reference(result.path, {"x": x})["y"], expected)


def test_constants_and_casts_inside_the_graph_follow(tmp_path):
    text = """g (int64[n, 2] x) => (float[n, 2] y) {
        k = Constant<value_float: float = 0.5>() f = Cast<to: int = 1>(x) y = Mul(f, k) }"""
    result = convert_float16(write(tmp_path / "a.onnx", text, {}), tmp_path / "b.onnx")
    np.testing.assert_array_equal(run_reference(result.path, {"x": np.array([[3, 4]])})["y"], [[1.5, 2]])
    assert set(types(result.path).values()) == {"FLOAT16"}


def test_a_graph_output_that_is_also_read_inside_is_restored_once(tmp_path):
    text = "g (float[n, 2] x) => (float[n, 2] a, float[n, 2] y) { a = Relu(x) y = Neg(a) }"
    result = convert_float16(write(tmp_path / "a.onnx", text, {}), tmp_path / "b.onnx")
    outputs = run_reference(result.path, {"x": np.array([[1, -2]], np.float32)})
    np.testing.assert_array_equal(outputs["a"], [[1, 0]])
    np.testing.assert_array_equal(outputs["y"], [[-1, 0]])


def test_subgraphs_are_refused_with_a_way_out(tmp_path):
    text = """g (bool c, float[2] x) => (float[2] y) {
        y = If (c) <then_branch = t () => (float[2] a) { a = Neg(x) }, else_branch = e () => (float[2] b) { b = Abs(x) }> }"""
    with pytest.raises(GraphError, match="holds a subgraph"):
        convert_float16(write(tmp_path / "a.onnx", text, {}), tmp_path / "b.onnx")


def test_the_same_graph_gives_the_same_bytes(case, tmp_path):
    for name in ("a.onnx", "b.onnx"):
        convert_float16(case("vit").float_path, tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
