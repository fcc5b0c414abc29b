"""Graphs of float16 and bfloat16 keep their interface, and what the type cannot hold stays float32."""

from __future__ import annotations

import collections

import ml_dtypes
import numpy as np
import onnx
import pytest
from graph_nets import run_reference
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeopt.core.errors import GraphError
from edgeopt.graph.float_range import BFLOAT16, float_reach
from edgeopt.graph.half import convert_half
from edgeopt.graph.io import load_onnx
from edgeopt.graph.passes.round_bfloat16 import has_bfloat16, write_rounded
from edgeopt.graph.taps import tap

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
    result = convert_half(net.float_path, tmp_path / "m.onnx")
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
    convert_half(case("vit").float_path, tmp_path / "m.onnx")
    before, after = onnx.load(case("vit").float_path).graph, onnx.load(tmp_path / "m.onnx").graph
    assert list(after.input) == list(before.input)
    assert [o.name for o in after.output] == ["logits"]
    assert after.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert collections.Counter(n.op_type for n in after.node)["Cast"] == 2


def test_op_types_asked_for_stay_in_float32(case, tmp_path):
    result = convert_half(case("mlp").float_path, tmp_path / "m.onnx", keep_float32=["Gemm"])
    # Relu between float32 layers rounds nothing but their outputs: every weight is float32
    assert set(types(result.path).values()) == {"FLOAT"}
    assert result.events == ()


def test_an_op_type_that_is_not_there_is_refused(case, tmp_path):
    with pytest.raises(GraphError, match=r"Softmaxx.*It has Gemm, Relu"):
        convert_half(case("mlp").float_path, tmp_path / "m.onnx", keep_float32=["Softmaxx"])


def test_a_weight_beyond_float16_keeps_its_node_in_float32(tmp_path):
    text = "g (float[n, 2] x) => (float[n, 2] y) { a = Mul(x, big) y = Add(a, small) }"
    constants = {"big": np.array([1e5, 1], np.float32), "small": np.array([1, 2], np.float32)}
    source = write(tmp_path / "a.onnx", text, constants)
    result = convert_half(source, tmp_path / "b.onnx")
    x = np.array([[0.01, 0.5]], np.float32)
    np.testing.assert_allclose(run_reference(result.path, {"x": x})["y"], [[1001, 2.5]], rtol=1e-3)
    assert [event.kind for event in result.events] == ["fallback"]
    assert "big reaches 1e+05" in result.events[0].message
    assert types(result.path) == {"big": "FLOAT", "small_float16": "FLOAT16"}


def test_an_epsilon_below_float16_keeps_its_node_in_float32(tmp_path):
    text = "g (float[n, 2] x) => (float[n, 2] y) { a = Add(x, eps) b = Sqrt(a) y = Div(x, b) }"
    source = write(tmp_path / "a.onnx", text, {"eps": np.array([1e-12], np.float32)})
    result = convert_half(source, tmp_path / "b.onnx", keep_float32=["Sqrt", "Div"])
    assert "zero in float16" in result.events[0].message
    assert np.isfinite(run_reference(result.path, {"x": np.zeros((1, 2), np.float32)})["y"]).all()


def test_a_bias_of_next_to_nothing_is_no_obstacle(tmp_path):
    text = "g (float[n, 2] x) => (float[n, 2] y) { y = Add(x, tiny) }"
    source = write(tmp_path / "a.onnx", text, {"tiny": np.array([1e-9, 2e-9], np.float32)})
    assert convert_half(source, tmp_path / "b.onnx").events == ()


def test_an_infinite_mask_stays_infinite(tmp_path):
    text = "g (float[n, 2] x) => (float[n, 2] y) { a = Add(x, mask) y = Softmax(a) }"
    source = write(tmp_path / "a.onnx", text, {"mask": np.array([0, -np.inf], np.float32)})
    result = convert_half(source, tmp_path / "b.onnx")
    np.testing.assert_array_equal(run_reference(result.path, {"x": np.ones((1, 2), np.float32)})["y"], [[1, 0]])
    assert result.events == ()


def test_an_input_that_is_float32_by_definition_stays_so(tmp_path):
    text = """g (float[1, 1, 2, 2] x) => (float[1, 1, 4, 4] y) {
        a = Mul(x, k) y = Resize<mode: string = "nearest">(a, , scales) }"""
    constants = {"scales": np.array([1, 1, 2, 2], np.float32), "k": np.array([2], np.float32)}
    result = convert_half(write(tmp_path / "a.onnx", text, constants), tmp_path / "b.onnx")
    assert types(result.path) == {"scales": "FLOAT", "k_float16": "FLOAT16"}
    x = np.arange(4, dtype=np.float32).reshape(1, 1, 2, 2)
    expected = 2 * x.repeat(2, 2).repeat(2, 3)
    np.testing.assert_array_equal(run_reference(result.path, {"x": x})["y"], expected)


def test_constants_and_casts_inside_the_graph_follow(tmp_path):
    text = """g (int64[n, 2] x) => (float[n, 2] y) {
        k = Constant<value_float: float = 0.5>() f = Cast<to: int = 1>(x) y = Mul(f, k) }"""
    result = convert_half(write(tmp_path / "a.onnx", text, {}), tmp_path / "b.onnx")
    np.testing.assert_array_equal(run_reference(result.path, {"x": np.array([[3, 4]])})["y"], [[1.5, 2]])
    assert set(types(result.path).values()) == {"FLOAT16"}


def test_a_graph_output_that_is_also_read_inside_is_restored_once(tmp_path):
    text = "g (float[n, 2] x) => (float[n, 2] a, float[n, 2] y) { a = Relu(x) y = Neg(a) }"
    result = convert_half(write(tmp_path / "a.onnx", text, {}), tmp_path / "b.onnx")
    outputs = run_reference(result.path, {"x": np.array([[1, -2]], np.float32)})
    np.testing.assert_array_equal(outputs["a"], [[1, 0]])
    np.testing.assert_array_equal(outputs["y"], [[-1, 0]])


def test_subgraphs_are_refused_with_a_way_out(tmp_path):
    text = """g (bool c, float[2] x) => (float[2] y) {
        y = If (c) <then_branch = t () => (float[2] a) { a = Neg(x) }, else_branch = e () => (float[2] b) { b = Abs(x) }> }"""
    with pytest.raises(GraphError, match="holds a subgraph"):
        convert_half(write(tmp_path / "a.onnx", text, {}), tmp_path / "b.onnx")


def test_the_same_graph_gives_the_same_bytes(case, tmp_path):
    for name in ("a.onnx", "b.onnx"):
        convert_half(case("vit").float_path, tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def hot(path):
    """A product of 10^6 in the middle, divided away again; every constant is inside float16."""
    text = (
        "g (float[n, 4] x) => (float[n, 4] y) "
        "{ a = Mul(x, k) b = Mul(a, k) c = Relu(b) d = Div(c, k) e = Div(d, k) y = Add(e, small) }"
    )
    return write(path, text, {"k": np.array([1e3], np.float32), "small": np.full(4, 0.5, np.float32)})


def positive(count, seed=0):
    return np.random.default_rng(seed).uniform(0.5, 1.0, (count, 4)).astype(np.float32)


def test_the_reach_of_a_graphs_values_is_what_numpy_finds(case, tmp_path):
    net = case("vit")
    batches = [{"x": net.samples[i : i + 8]} for i in range(0, 32, 8)]
    reach = float_reach(net.float_path, batches, run_reference)
    assert reach["x"].largest == np.abs(net.samples).max()
    names = [name for name in reach if name != "x"]
    values = [tap(net.float_path, names, batch, run_reference) for batch in batches]
    for name in names:
        all_of_it = np.concatenate([part[name].reshape(-1) for part in values])
        assert reach[name].largest == pytest.approx(np.abs(all_of_it).max(), rel=1e-6)
        lost = (all_of_it != 0) & (all_of_it.astype(np.float16) == 0)
        assert reach[name].lost == pytest.approx(lost.mean(), abs=1e-6)
    assert len(names) > 50


def test_values_beyond_float16_keep_their_ops_in_float32_and_each_is_named(tmp_path):
    source, x = hot(tmp_path / "a.onnx"), positive(64)
    assert np.isinf((x.astype(np.float16) * np.float16(1e3)) * np.float16(1e3)).all()
    reach = float_reach(source, [{"x": x}], run_reference)
    result = convert_half(source, tmp_path / "c.onnx", reach=reach, overflow="keep_float32")
    np.testing.assert_allclose(run_reference(result.path, {"x": x})["y"], x + 0.5, rtol=4e-3)
    kept = {event.message.partition(" ")[0] for event in result.events if event.kind == "fallback"}
    assert kept == {"Mul", "Relu", "Div"}
    assert "b reaches 9.9" in result.events[0].message
    assert types(result.path)["small_float16"] == "FLOAT16"  # the last op is untouched


def test_values_beyond_float16_are_refused_where_the_recipe_says_so(tmp_path):
    source = hot(tmp_path / "a.onnx")
    reach = float_reach(source, [{"x": positive(8)}], run_reference)
    with pytest.raises(GraphError, match=r"2 values of the graph are beyond float16.*b \(.*overflow=keep_float32"):
        convert_half(source, tmp_path / "b.onnx", reach=reach)
    assert not (tmp_path / "b.onnx").exists()


def test_a_graph_inside_float16_is_converted_as_without_data(case, tmp_path):
    net = case("mlp")
    reach = float_reach(net.float_path, [{"x": net.samples}], run_reference)
    for name, seen in (("a.onnx", reach), ("b.onnx", None)):
        assert convert_half(net.float_path, tmp_path / name, reach=seen).events == ()
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_what_rounds_to_zero_is_noted_with_the_value_that_loses_most(tmp_path):
    text = "g (float[n, 4] x) => (float[n, 4] y) { a = Mul(x, k) b = Mul(a, k) c = Div(b, k) y = Div(c, k) }"
    source = write(tmp_path / "a.onnx", text, {"k": np.array([1e-4], np.float32)})
    x = np.linspace(1, 8, 64, dtype=np.float32).reshape(-1, 4)  # b from 1e-8 to 8e-8; zero below 2.98e-8
    reach = float_reach(source, [{"x": x}], run_reference)
    assert reach["b"].lost == np.mean(x * np.float32(1e-4) * np.float32(1e-4) < 2.0**-25)
    notes = [e.message for e in convert_half(source, tmp_path / "b.onnx", reach=reach).events if e.kind == "note"]
    assert len(notes) == 1
    assert "In 1 of 5 values" in notes[0]
    assert "most in b (28.1%)" in notes[0]


@pytest.mark.parametrize("net", ["mlp", "vit", "resnet", "branches", "pooled"])
def test_bfloat16_outputs_stay_close_and_the_file_halves(case, tmp_path, net):
    net = case(net)
    result = convert_half(net.float_path, tmp_path / "m.onnx", BFLOAT16)
    assert "FLOAT" not in types(result.path).values()
    assert onnx.load(result.path).opset_import[0].version >= 22  # where ONNX defines convolutions for it
    onnx.checker.check_model(result.path, full_check=True)
    assert (result.events, result.modified) == ((), True)
    expected = run_reference(net.float_path, {"x": net.samples})["logits"]
    actual = run_reference(write_rounded(load_onnx(result.path), tmp_path / "r.onnx"), {"x": net.samples})["logits"]
    assert actual.dtype == np.float32
    # each of some dozen roundings is 2^-8 of its value
    np.testing.assert_allclose(actual, expected, rtol=0, atol=20 * 2**-8 * np.abs(expected).max())
    assert not np.array_equal(actual, expected)


def test_bfloat16_holds_what_float16_cannot(tmp_path):
    source, x = hot(tmp_path / "a.onnx"), positive(64)
    reach = float_reach(source, [{"x": x}], run_reference, BFLOAT16)
    result = convert_half(source, tmp_path / "b.onnx", BFLOAT16, reach=reach)
    assert result.events == ()
    got = run_reference(write_rounded(load_onnx(result.path), tmp_path / "r.onnx"), {"x": x})["y"]
    np.testing.assert_allclose(got, x + 0.5, rtol=6 * 2**-8)


def test_a_value_beyond_bfloat16_stays_in_float32(tmp_path):
    text = "g (float[n, 4] x) => (float[n, 4] y) { a = Mul(x, k) b = Relu(a) y = Div(b, k) }"
    source, x = write(tmp_path / "a.onnx", text, {"k": np.array([3.4e38], np.float32)}), np.ones((8, 4), np.float32)
    reach = float_reach(source, [{"x": x}], run_reference, BFLOAT16)
    result = convert_half(source, tmp_path / "b.onnx", BFLOAT16, reach=reach, overflow="keep_float32")
    assert "a reaches 3.4e+38 on the calibration data, bfloat16 ends at 3.39e+38" in result.events[0].message
    got = run_reference(write_rounded(load_onnx(result.path), tmp_path / "r.onnx"), {"x": x})["y"]
    np.testing.assert_array_equal(got, x)


def test_op_types_asked_for_stay_in_float32_beside_bfloat16(case, tmp_path):
    result = convert_half(case("mlp").float_path, tmp_path / "m.onnx", BFLOAT16, keep_float32=["Gemm"])
    assert set(types(result.path).values()) == {"FLOAT"}


def test_a_graph_without_bfloat16_has_none(case, tmp_path):
    assert not has_bfloat16(load_onnx(case("mlp").float_path))
    convert_half(case("mlp").float_path, tmp_path / "m.onnx", BFLOAT16)
    assert has_bfloat16(load_onnx(tmp_path / "m.onnx"))
    write_rounded(load_onnx(tmp_path / "m.onnx"), tmp_path / "r.onnx")
    assert set(types(tmp_path / "r.onnx").values()) == {"FLOAT"}


FINITE = st.floats(-(2.0**127), 2.0**127, width=32, allow_subnormal=False)


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.float32, (2, 4), elements=FINITE))
def test_each_value_is_rounded_as_bfloat16_rounds_it(tmp_path_factory, x):
    folder = tmp_path_factory.mktemp("rounded")
    source = write(folder / "a.onnx", "g (float[n, 4] x) => (float[n, 4] y) { a = Neg(x) y = Neg(a) }", {})
    convert_half(source, folder / "b.onnx", BFLOAT16)
    got = run_reference(write_rounded(load_onnx(folder / "b.onnx"), folder / "r.onnx"), {"x": x})["y"]
    np.testing.assert_array_equal(got, x.astype(ml_dtypes.bfloat16).astype(np.float32))
