"""Each pass changes the form of a graph and not what it computes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from graph_nets import build, ops, run_reference
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeopt.core.errors import GraphError
from edgeopt.graph.io import check_onnx, load_onnx, save_onnx
from edgeopt.graph.passes.base import run_passes
from edgeopt.graph.passes.check_weights import CheckWeights
from edgeopt.graph.passes.fold_weight_transpose import FoldWeightTranspose
from edgeopt.graph.passes.hoist_quantize import HoistQuantize
from edgeopt.graph.passes.own_zero_points import OwnZeroPoints
from edgeopt.graph.passes.quantize_bias import QuantizeBias
from edgeopt.graph.passes.simplify import Simplify
from edgeopt.graph.passes.tidy import Tidy
from edgeopt.graph.qdq import activation_points, weight_nodes


def outputs(model, path, x):
    save_onnx(model, path)
    check_onnx(path)
    return run_reference(path, {"x": x})


@settings(max_examples=20, deadline=None)
@given(perm=st.permutations([0, 1, 2]), axis=st.integers(-3, 2), seed=st.integers(0, 9))
def test_a_transposed_weight_dequantizes_to_the_same_values(tmp_path_factory, perm, axis, seed):
    rng = np.random.default_rng(seed)
    shape = (2, 3, 4)
    weight = rng.integers(-127, 128, shape).astype(np.int8)
    scale = rng.uniform(0.01, 1, shape[axis]).astype(np.float32)
    text = (
        f"g (float[1] x) => (float[a, b, c] y) {{ d = DequantizeLinear<axis: int = {axis}>(w, s, z) "
        f"t = Transpose<perm: ints = [{', '.join(map(str, perm))}]>(d) y = Add(t, x) }}"
    )
    model = build(text, {"w": weight, "s": scale, "z": np.zeros_like(scale, np.int8)})
    path = tmp_path_factory.mktemp("fold") / "m.onnx"
    run_passes(model, [FoldWeightTranspose(), Tidy()])
    assert ops(model) == ["DequantizeLinear", "Add"]
    shaped = scale.reshape([-1 if i == axis % 3 else 1 for i in range(3)])
    np.testing.assert_array_equal(
        outputs(model, path, np.zeros(1, np.float32))["y"], (weight * shaped).transpose(perm).astype(np.float32)
    )


def test_a_linear_layers_weight_stands_right_behind_its_product(case):
    model = load_onnx(case("vit").int8_path)
    dequantized = list(weight_nodes(model.graph))
    readers = {reader.op_type for node in dequantized for reader in node.outputs[0].consumers()}
    assert readers == {"Conv", "MatMul", "Gemm"}
    assert all(node.inputs[0].dtype == ir.DataType.INT8 for node in dequantized)


def test_no_two_weights_share_a_zero_point(case):
    model = load_onnx(case("vit").int8_path)
    names = [node.inputs[2].name for node in weight_nodes(model.graph)]
    assert len(set(names)) == len(names) == 10


def test_an_absent_zero_point_is_added():
    weight = np.ones((2, 2), np.int8)
    text = "g (float[n, 2] x) => (float[n, 2] y) { d = DequantizeLinear<axis: int = 0>(w, s) y = MatMul(x, d) }"
    model = build(text, {"w": weight, "s": np.ones(2, np.float32)})
    assert run_passes(model, [OwnZeroPoints()])
    zero = next(iter(weight_nodes(model.graph))).inputs[2].const_value.numpy()
    assert (zero.dtype, zero.tolist()) == (np.int8, [0, 0])


def test_a_weight_of_minus_128_is_refused():
    weight = np.array([[-128, 1], [1, 1]], np.int8)
    text = "g (float[n, 2] x) => (float[n, 2] y) { d = DequantizeLinear(w, s, z) y = MatMul(x, d) }"
    model = build(text, {"w": weight, "s": np.float32(1), "z": np.int8(0)})
    with pytest.raises(GraphError, match=r"−128.*1 of 4"):
        run_passes(model, [CheckWeights()])


CONV_POOL = """g (float[n, 2, 8, 8] x) => (float[n, 3, 4, 4] y) {
    r = Relu(x) p = MaxPool<kernel_shape: ints = [2, 2], strides: ints = [2, 2]>(r)
    q = QuantizeLinear(p, s, z) d = DequantizeLinear(q, s, z) y = Conv<kernel_shape: ints = [1, 1]>(d, w) }"""


@settings(max_examples=15, deadline=None)
@given(
    scale=st.floats(1e-3, 0.1), zero=st.sampled_from([np.int8(0), np.uint8(0), np.uint8(93)]), seed=st.integers(0, 9)
)
def test_quantizing_before_pooling_gives_the_same_values(tmp_path_factory, scale, zero, seed):
    rng = np.random.default_rng(seed)
    constants = {"s": np.float32(scale), "z": zero, "w": rng.normal(size=(3, 2, 1, 1)).astype(np.float32)}
    folder = tmp_path_factory.mktemp("hoist")
    x = rng.normal(size=(2, 2, 8, 8)).astype(np.float32) * 4
    before = outputs(build(CONV_POOL, constants), folder / "a.onnx", x)["y"]
    model = build(CONV_POOL, constants)
    assert run_passes(model, [HoistQuantize()])
    assert ops(model)[:3] == ["Relu", "QuantizeLinear", "DequantizeLinear"]
    np.testing.assert_array_equal(outputs(model, folder / "b.onnx", x)["y"], before)


def test_a_value_that_something_else_reads_unquantized_is_left_alone():
    text = CONV_POOL.replace("(float[n, 3, 4, 4] y)", "(float[n, 3, 4, 4] y, float[n, 2, 4, 4] p)")
    model = build(text, {"s": np.float32(1), "z": np.int8(0), "w": np.ones((3, 2, 1, 1), np.float32)})
    assert not run_passes(model, [HoistQuantize()])


def test_concatenated_branches_are_quantized_one_by_one(tmp_path):
    text = """g (float[n, 4] x) => (float[n, 8] y) {
        a = Relu(x) b = Neg(x) c = Concat<axis: int = 1>(a, b)
        q = QuantizeLinear(c, s, z) y = DequantizeLinear(q, s, z) }"""
    constants = {"s": np.float32(0.05), "z": np.int8(0)}
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    before = outputs(build(text, constants), tmp_path / "a.onnx", x)["y"]
    model = build(text, constants)
    run_passes(model, [HoistQuantize()])
    assert len(activation_points(model.graph)) == 3
    np.testing.assert_array_equal(outputs(model, tmp_path / "b.onnx", x)["y"], before)


def biased(op, seed, size):
    """One quantized layer with a float bias of about ``size``, and its half unit per output channel."""
    rng = np.random.default_rng(seed)
    shape, axis = ((4, 3, 1, 1), 0) if op == "Conv" else ((3, 4), 1)
    steps = np.float32(0.03), rng.uniform(0.001, 0.01, 4).astype(np.float32)
    constants = {"s": steps[0], "z": np.uint8(7), "w": rng.integers(-127, 128, shape).astype(np.int8), "t": steps[1]}
    constants |= {"u": np.zeros(4, np.int8), "b": (rng.normal(size=4) * size).astype(np.float32)}
    dims = "n, 3, 2, 2" if op == "Conv" else "n, 3"
    text = f"""g (float[{dims}] x) => (float[{dims.replace("3", "4", 1)}] y) {{
        q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) e = DequantizeLinear<axis: int = {axis}>(w, t, u)
        y = {op}(d, e, b) }}"""
    x = rng.normal(size=(5, 3, 2, 2) if op == "Conv" else (5, 3)).astype(np.float32)
    return build(text, constants), x, steps[0] * steps[1].astype(np.float64) / 2


@settings(max_examples=25, deadline=None)
@given(op=st.sampled_from(["Conv", "Gemm"]), seed=st.integers(0, 99), size=st.floats(1e-3, 1e3))
def test_a_quantized_bias_is_off_by_half_a_unit_at_most(tmp_path_factory, op, seed, size):
    folder = tmp_path_factory.mktemp("bias")
    model, x, limit = biased(op, seed, size)
    before = outputs(model, folder / "a.onnx", x)["y"].astype(np.float64)
    assert run_passes(model, [QuantizeBias()])
    after = outputs(model, folder / "b.onnx", x)["y"]
    limit = limit.reshape(1, 4, *[1] * (x.ndim - 2)) + 1e-6 * (
        1 + np.abs(before)
    )  # half a unit, and float32's rounding
    assert (np.abs(after - before) <= limit).all()
    dequantize = model.graph[-1].inputs[2].producer()
    assert (
        dequantize.inputs[0].dtype == dequantize.inputs[2].dtype == ir.DataType.INT32
    )  # the zero point is written out


def test_every_bias_of_a_quantized_layer_is_written_as_int32(case):
    for name, layers in (("mlp", 3), ("pooled", 4), ("resnet", 22)):
        model = load_onnx(case(name).int8_path)
        run_passes(model, [QuantizeBias()])
        weighted = [node for node in model.graph if node.op_type in ("Conv", "Gemm")]
        assert len(weighted) == layers
        assert all(node.inputs[2].producer().op_type == "DequantizeLinear" for node in weighted)


def test_a_float_layers_bias_stays_float(case):
    model = load_onnx(case("mlp").float_path)
    assert not run_passes(model, [QuantizeBias()])


def test_a_bias_too_large_for_its_unit_stays_float():
    text = """g (float[n, 2] x) => (float[n, 2] y) { q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z)
        e = DequantizeLinear(w, t, u) y = Gemm(d, e, b) }"""
    constants = {"s": np.float32(1e-6), "z": np.int8(0), "w": np.ones((2, 2), np.int8), "t": np.float32(1e-6)}
    model = build(text, {**constants, "u": np.int8(0), "b": np.full(2, 9.0, np.float32)})
    assert not run_passes(model, [QuantizeBias()])


def test_simplifying_folds_constants_and_keeps_quantized_weights():
    text = """g (float[n, 2] x) => (float[n, 2] y) { d = DequantizeLinear(w, s, z) k = Add(a, a) i = Identity(x)
        m = MatMul(i, d) y = Mul(m, k) }"""
    constants = {"w": np.ones((2, 2), np.int8), "s": np.float32(1), "z": np.int8(0), "a": np.ones(2, np.float32)}
    model = build(text, constants)
    next(node for node in model.graph if node.op_type == "MatMul").metadata_props["edgeopt.node"] = "linear"
    run_passes(model, [Simplify()])
    assert ops(model) == ["DequantizeLinear", "MatMul", "Mul"]
    assert next(iter(weight_nodes(model.graph))).inputs[0].dtype == ir.DataType.INT8
    assert [node.metadata_props.get("edgeopt.node") for node in model.graph] == [None, "linear", None]


def test_simplifying_that_loses_a_weight_is_an_error(monkeypatch):
    text = "g (float[n, 2] x) => (float[n, 2] y) { d = DequantizeLinear(w, s, z) y = MatMul(x, d) }"
    model = build(text, {"w": np.ones((2, 2), np.int8), "s": np.float32(1), "z": np.int8(0)})

    def fold(model):
        node = next(iter(weight_nodes(model.graph)))
        value = ir.Value(name="folded", const_value=ir.tensor(np.ones((2, 2), np.float32), name="folded"))
        model.graph.register_initializer(value)
        node.outputs[0].replace_all_uses_with(value)
        model.graph.remove(node, safe=True)

    monkeypatch.setattr("onnxscript.optimizer.optimize_ir", fold)
    with pytest.raises(GraphError, match="lost quantized weights"):
        run_passes(model, [Simplify()])


def test_a_pass_whose_promise_does_not_hold_is_named():
    class Broken(ir.passes.InPlacePass):
        def call(self, model):
            return ir.passes.PassResult(model, modified=False)

        def ensures(self, model):
            raise ValueError("nothing left")

    with pytest.raises(GraphError, match=r"pass Broken failed.*nothing left"):
        run_passes(build("g (float[n] x) => (float[n] y) { y = Neg(x) }", {}), [Broken()])


def test_tidying_removes_what_nothing_reads_and_names_every_node():
    text = "g (float[n, 2] x) => (float[n, 2] y) { dead = Neg(x) y = Mul(x, b) }"
    model = build(text, {"b": np.ones(2, np.float32)})
    unused = ir.tensor(np.ones(1), name="unused")
    model.graph.register_initializer(
        ir.Value(name="unused", const_value=unused, type=ir.TensorType(unused.dtype), shape=ir.Shape([1]))
    )
    run_passes(model, [Tidy()])
    assert [node.name for node in model.graph] == ["Mul:y"]
    assert list(model.graph.initializers) == ["b"]
