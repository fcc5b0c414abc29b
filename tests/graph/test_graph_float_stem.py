"""The first convolution in float on int8 weights, and which grids go with it."""

from __future__ import annotations

import numpy as np
import pytest
from graph_nets import build, optimized_ops, run_reference

from edgeopt.graph.dialects import apply_dialect
from edgeopt.graph.dialects.base import ENOUGH_DB, OBLIGATION_DB
from edgeopt.graph.io import load_onnx
from edgeopt.graph.passes.drop_output_points import DropOutputPoints
from edgeopt.graph.passes.float_readers import feeds_float
from edgeopt.graph.passes.float_stem import FloatStem
from edgeopt.graph.qdq import activation_points, array_of

WEIGHTS = {
    "w": np.full((4, 2, 3, 3), 3, np.int8),
    "v": np.full((4, 4, 3, 3), 2, np.int8),
    "s": np.array(0.05, np.float32),
    "z": np.array(0, np.int8),
    "t": np.array(0.25, np.float32),
    "ones": np.ones(4, np.float32),
}
QDQ = "{0}_q = QuantizeLinear({0}, s, z) {0}_d = DequantizeLinear({0}_q, s, z)"
HEAD = "x_q = QuantizeLinear(x, s, z) x_d = DequantizeLinear(x_q, s, z) w_d = DequantizeLinear(w, t, z) a = Conv<pads=[1,1,1,1]>(x_d, w_d)"


def sqnr(reference, output):
    reference = reference.astype(np.float64)
    return 10 * np.log10(np.square(reference).sum() / np.square(reference - output).sum())


def graph(body, output="y"):
    text = f"g (float[N, 2, 6, 6] x) => (float[N, 4, 6, 6] {output}) {{ {HEAD} {body} }}"
    used = {name: array for name, array in WEIGHTS.items() if f"{name}," in text or f"{name})" in text}
    return build(text, used)


def tensors(model):
    return [point.tensor.name for point in activation_points(model.graph)]


def test_the_convolution_of_the_input_reads_the_input_and_a_weight_that_is_int8_in_the_file():
    model = graph(f"r = Relu(a) {QDQ.format('r')} v_d = DequantizeLinear(v, t, z) y = Conv<pads=[1,1,1,1]>(r_d, v_d)")
    step = FloatStem()
    assert step(model).modified
    first, second = [node for node in model.graph if node.op_type == "Conv"]
    assert step.changed == [first]
    assert first.inputs[0] is model.graph.inputs[0]
    assert [node.op_type for node in (first.inputs[1].producer(), first.inputs[1].producer().inputs[0].producer())] == [
        "Mul",
        "Cast",
    ]
    assert array_of(model.graph.initializers["w"]).dtype == np.int8
    assert second.inputs[0].producer().op_type == "DequantizeLinear"
    assert tensors(model) == ["r"]  # what the second convolution reads stays on its grid


def test_an_input_that_something_else_reads_too_keeps_its_grid_and_its_convolution():
    model = graph("b = Concat<axis=1>(x_d, x_d) y = Add(a, b)")
    assert not FloatStem()(model).modified
    assert tensors(model) == ["x"]


@pytest.mark.parametrize(
    ("body", "float_only"),
    [
        ("y = LayerNormalization<axis=1>(a_d, scale)", True),
        ("m = Transpose<perm=[0, 2, 3, 1]>(a_d) n = Add(m, ones) y = Transpose<perm=[0, 3, 1, 2]>(n)", True),
        ("v_d = DequantizeLinear(v, t, z) y = Conv<pads=[1,1,1,1]>(a_d, v_d)", False),
        ("y = Add(a_d, a_d)", False),
        ("y = Relu(a_d)", False),
        ("y = Identity(a_d)", False),
    ],
)
def test_a_grid_goes_where_float_operations_alone_read_it(body, float_only):
    text = f"g (float[N, 2, 6, 6] x) => (float[N, 4, 6, 6] y) {{ {HEAD} {QDQ.format('a')} {body} }}"
    constants = {**WEIGHTS, "scale": np.ones((4, 6, 6), np.float32)}
    build_ = {name: array for name, array in constants.items() if f"{name}," in text or f"{name})" in text}
    model = build(text, build_)
    (point,) = [point for point in activation_points(model.graph) if point.tensor.name == "a"]
    assert feeds_float(point) is float_only
    DropOutputPoints()(model)
    assert ("a" not in tensors(model)) is float_only
    model = build(text, build_)
    FloatStem()(model)
    assert ("a" not in tensors(model)) is float_only


@pytest.mark.parametrize(
    ("body", "goes"),
    [
        ("y = LayerNormalization<axis=1>(r_d, scale)", True),
        ("m = Transpose<perm=[0, 2, 3, 1]>(r_d) n = Add(m, ones) y = Transpose<perm=[0, 3, 1, 2]>(n)", True),
        ("y = Sigmoid(r_d)", False),  # what follows the ReLU is in no kernel of the convolution
        ("v_d = DequantizeLinear(v, t, z) y = Conv<pads=[1,1,1,1]>(r_d, v_d)", False),
    ],
)
def test_a_grid_behind_a_relu_goes_where_float_operations_alone_read_it(body, goes):
    text = f"g (float[N, 2, 6, 6] x) => (float[N, 4, 6, 6] y) {{ {HEAD} r = Relu(a) {QDQ.format('r')} {body} }}"
    constants = {**WEIGHTS, "scale": np.ones((4, 6, 6), np.float32)}
    model = build(text, {name: array for name, array in constants.items() if f"{name}," in text or f"{name})" in text})
    assert DropOutputPoints()(model).modified is goes
    assert ("r" not in tensors(model)) is goes


def test_a_tensor_that_the_graph_returns_feeds_no_float_operation():
    text = f"g (float[N, 2, 6, 6] x) => (float[N, 4, 6, 6] a_d, float[N, 4, 6, 6] y) {{ {HEAD} {QDQ.format('a')} y = Add(a_d, ones) }}"
    constants = {**WEIGHTS, "ones": np.ones((1, 1, 6, 6), np.float32)}
    model = build(text, {name: array for name, array in constants.items() if f"{name}," in text or f"{name})" in text})
    (point,) = [point for point in activation_points(model.graph) if point.tensor.name == "a"]
    assert not feeds_float(point)


@pytest.mark.parametrize("net", ["resnet", "mobilenet", "vit"])
def test_the_form_is_no_less_accurate(case, tmp_path, net):
    net = case(net)
    reference = run_reference(net.float_path, {"x": net.samples})["logits"]
    levels = []
    for name in ("ort-x86", "ort-x86-float-stem"):
        form = apply_dialect(name, net.int8_path, tmp_path / f"{name}.onnx")
        levels.append(sqnr(reference, run_reference(form.path, {"x": net.samples})["logits"]))
    assert levels[1] >= min(levels[0], ENOUGH_DB) - OBLIGATION_DB


def test_onnx_runtime_runs_all_but_the_first_convolution_in_int8(case, tmp_path):
    net = case("resnet")
    forms = [apply_dialect(name, net.int8_path, tmp_path / "m.onnx") for name in ("ort-x86", "ort-x86-float-stem")]
    apply_dialect("ort-x86", net.int8_path, tmp_path / "plain.onnx")
    counts = [optimized_ops(tmp_path / name, tmp_path / "optimized.onnx") for name in ("plain.onnx", "m.onnx")]
    assert counts[1]["QLinearConv"] == counts[0]["QLinearConv"] - 1 > 0
    assert [event.kind for event in forms[1].events if "this form" in event.message] == ["note"]
    convolutions = [node for node in load_onnx(forms[1].path).graph if node.op_type == "Conv"]
    assert convolutions[0].inputs[0].is_graph_input()


RECURRENT = """
g (float[N, 2, 6] x) => (float[N, 3] y) {
    x_q = QuantizeLinear(x, s, z) x_d = DequantizeLinear(x_q, s, z) w_d = DequantizeLinear(w, t, z)
    a = Conv(x_d, w_d) r = Relu(a) r_q = QuantizeLinear(r, s, z) r_d = DequantizeLinear(r_q, s, z)
    m = Transpose<perm=[2, 0, 1]>(r_d) c = GRU<hidden_size=5>(m, p, q) k = Squeeze(c, one) e = ReduceMean<keepdims=0>(k, none)
    e_q = QuantizeLinear(e, s, z) e_d = DequantizeLinear(e_q, s, z) h_d = DequantizeLinear(h, t, z)
    y = Gemm<transB=1>(e_d, h_d)
}"""


@pytest.mark.parametrize(("width", "left"), [(3, []), (2000, ["e"])])
def test_around_a_recurrent_cell_a_small_last_layer_is_float_too(width, left):
    constants = {
        **{name: WEIGHTS[name] for name in "szt"},
        "w": np.full((4, 2, 3), 3, np.int8),
        "p": np.ones((1, 15, 4), np.float32),
        "q": np.ones((1, 15, 5), np.float32),
        "h": np.full((width, 5), 2, np.int8),
        "one": np.array([1], np.int64),
        "none": np.array([0], np.int64),
    }
    model = build(RECURRENT.replace("float[N, 3] y", f"float[N, {width}] y"), constants)
    FloatStem()(model)
    assert tensors(model) == left
