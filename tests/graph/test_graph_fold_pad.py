"""Zero padding goes into the convolution behind it, or stays where it means something else."""

from __future__ import annotations

import collections

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from graph_nets import Case, build, make_program, ops, optimized_ops, quantize, run_reference, smooth, trained
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from torch import nn

from edgeopt.core.spec import TensorSpec
from edgeopt.graph.dialects import apply_dialect
from edgeopt.graph.dialects.grids import is_nonnegative, upper_bound
from edgeopt.graph.differences import first_difference
from edgeopt.graph.export import export_onnx
from edgeopt.graph.io import load_onnx, save_checked
from edgeopt.graph.layers import layer_sqnr
from edgeopt.graph.passes.base import run_passes
from edgeopt.graph.passes.fold_pad import FoldPad
from edgeopt.graph.passes.hoist_quantize import HoistQuantize
from edgeopt.graph.passes.tidy import Tidy
from edgeopt.graph.qdq import RANGE_KEY, activation_points


def evaluate(model, x):
    """ONNX's own reference implementation: slow, and another program than any runtime."""
    return ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x})


@settings(max_examples=60, deadline=None)
@given(
    pads=st.lists(st.integers(0, 2), min_size=4, max_size=4),
    own=st.lists(st.integers(0, 1), min_size=4, max_size=4),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    depthwise=st.booleans(),
    axes=st.sampled_from([None, [2, 3], [-1, -2], [3, 2]]),
    grid=st.sampled_from([None, np.int8(0), np.uint8(0), np.uint8(77), np.int8(-128)]),
    seed=st.integers(0, 99),
)
def test_folding_keeps_what_the_graph_computes(pads, own, kernel, stride, dilation, depthwise, axes, grid, seed):
    rng = np.random.default_rng(seed)
    channels = 4 if depthwise else 3
    weight = rng.normal(size=(channels, 1 if depthwise else 4, *kernel)).astype(np.float32)
    # pads are given per axis; a Pad with axes [-1, -2] lists width first
    order = [1, 0] if axes in ([-1, -2], [3, 2]) else [0, 1]
    begins, ends = [pads[i] for i in order], [pads[2 + i] for i in order]
    amounts = [*begins, *ends] if axes else [0, 0, *begins, 0, 0, *ends]
    constants = {"p": np.array(amounts, np.int64), "w": weight, "c": np.float32(0)}
    padding, data = "Pad(x, p, c)", "a"
    if axes:
        constants["axes"], padding = np.array(axes, np.int64), "Pad(x, p, c, axes)"
    quantized = ""
    if grid is not None:
        constants |= {"s": np.float32(0.05), "z": grid}
        quantized, data = "q = QuantizeLinear(a, s, z) d = DequantizeLinear(q, s, z)", "d"
    attributes = (
        f"pads: ints = {own}, strides: ints = [{stride}, {stride}], dilations: ints = [{dilation}, {dilation}], "
        f"group: int = {4 if depthwise else 1}"
    )
    text = f"g (float[n, 4, 6, 6] x) => (float[n, c, h, v] y) {{ a = {padding} {quantized} y = Conv<{attributes}>({data}, w) }}"
    x = rng.normal(size=(2, 4, 6, 6)).astype(np.float32) * 3
    before = evaluate(build(text, constants), x)[0]
    model = build(text, constants)
    assert run_passes(model, [FoldPad(), Tidy()])
    assert "Pad" not in ops(model)
    np.testing.assert_array_equal(evaluate(model, x)[0], before)


CONV = "y = Conv<kernel_shape: ints = [3, 3]>(a, w)"
CONSTANTS = {"p": np.array([0, 0, 0, 0, 0, 0, 1, 1]), "c": np.float32(0), "w": np.ones((2, 2, 3, 3), np.float32)}
HEAD = "g (float[n, 2, 8, 8] x) => (float[n, c, h, v] y)"


@pytest.mark.parametrize(
    ("body", "changed"),
    [
        (f"a = Pad(x, p, c) {CONV}", {"c": np.float32(1)}),
        (f"a = Pad(x, p, c) {CONV}", {"p": np.array([0, 0, 0, 0, 0, 0, -1, -1])}),
        (f"a = Pad(x, p, c) {CONV}", {"p": np.array([0, 0, 0, 0, 1, 0, 1, 1])}),
        (f"a = Pad(x, p, c) {CONV}", {"p": np.array([0, 1, 0, 0, 0, 1, 1, 1]), "w": np.ones((2, 4, 3, 3), np.float32)}),
        (f'a = Pad<mode: string = "reflect">(x, p) {CONV}', {}),
        (f'a = Pad<mode: string = "edge">(x, p) {CONV}', {}),
        ("a = Pad(x, p, c) y = MaxPool<kernel_shape: ints = [3, 3], strides: ints = [2, 2]>(a)", {}),
        ("a = Pad(x, p, c) y = AveragePool<kernel_shape: ints = [3, 3]>(a)", {}),
        ('a = Pad(x, p, c) y = Conv<auto_pad: string = "SAME_UPPER">(a, w)', {}),
        (f"a = Pad(x, p, c) b = Relu(a) {CONV.replace('a,', 'b,')}", {}),
        ("a = Pad(x, p, c) b = Conv(a, w) m = MaxPool<kernel_shape: ints = [3, 3]>(a) y = Add(b, m)", {}),
        ("a = Pad(w, p, c) y = Conv(x, a)", {}),
        ("a = Pad(x, p, c) y = ConvTranspose(a, w)", {}),
    ],
)
def test_other_padding_stays(body, changed):
    needed = {
        name: value for name, value in {**CONSTANTS, **changed}.items() if f"{name}," in body or f"{name})" in body
    }
    model = build(f"{HEAD} {{ {body} }}", needed)
    assert not run_passes(model, [FoldPad()])


def test_a_padded_tensor_that_is_an_output_stays():
    model = build(
        f"g (float[n, 2, 8, 8] x) => (float[n, c, h, v] y, float[n, 2, 9, 9] a) {{ a = Pad(x, p, c) {CONV} }}",
        CONSTANTS,
    )
    assert not run_passes(model, [FoldPad()])


def test_a_convolution_that_pads_validly_gets_explicit_pads():
    model = build(
        f'{HEAD} {{ a = Pad(x, p) y = Conv<auto_pad: string = "VALID">(a, w) }}', {k: CONSTANTS[k] for k in "pw"}
    )
    x = np.random.default_rng(0).normal(size=(1, 2, 8, 8)).astype(np.float32)
    before = evaluate(model, x)[0]
    assert run_passes(model, [FoldPad(), Tidy()])
    assert ops(model) == ["Conv"]
    np.testing.assert_array_equal(evaluate(model, x)[0], before)


def test_padding_twice_is_folded_twice():
    text = f"{HEAD} {{ b = Pad(x, p, c) a = Pad(b, p, c) {CONV} }}"
    model = build(text, CONSTANTS)
    assert run_passes(model, [FoldPad(), Tidy()])
    assert ops(model) == ["Conv"]
    assert model.graph[0].attributes.get_ints("pads") == (0, 0, 2, 2)


def test_one_padding_in_front_of_two_convolutions_is_folded_into_both():
    text = f"{HEAD} {{ a = Pad(x, p, c) b = Conv<strides: ints = [2, 2]>(a, w) d = Conv<strides: ints = [2, 2]>(a, w) y = Add(b, d) }}"
    x = np.random.default_rng(0).normal(size=(1, 2, 8, 8)).astype(np.float32)
    before = evaluate(build(text, CONSTANTS), x)[0]
    model = build(text, CONSTANTS)
    assert run_passes(model, [FoldPad(), Tidy()])
    assert ops(model) == ["Conv", "Conv", "Add"]
    np.testing.assert_array_equal(evaluate(model, x)[0], before)


POOLED = """g (float[n, 2, 8, 8] x) => (float[n, 2, 4, 4] y) {
    r = Relu(x) a = Pad(r, p, c) m = MaxPool<kernel_shape: ints = [3, 3], strides: ints = [2, 2]>(a)
    q = QuantizeLinear(m, s, z) y = DequantizeLinear(q, s, z) }"""


@settings(max_examples=15, deadline=None)
@given(
    zero=st.sampled_from([np.int8(0), np.uint8(0), np.uint8(93), np.int8(-128)]),
    mode=st.sampled_from(["constant", "reflect", "edge"]),
    seed=st.integers(0, 9),
)
def test_padding_that_stays_moves_integers(zero, mode, seed):
    text = POOLED if mode == "constant" else POOLED.replace("Pad(r, p, c)", f'Pad<mode: string = "{mode}">(r, p)')
    constants = {"p": CONSTANTS["p"], "s": np.float32(0.03), "z": zero}
    constants |= {"c": np.float32(0)} if mode == "constant" else {}
    x = np.random.default_rng(seed).normal(size=(2, 2, 8, 8)).astype(np.float32) * 4
    before = evaluate(build(text, constants), x)[0]
    model = build(text, constants)
    next(n for n in model.graph if n.op_type == "QuantizeLinear").metadata_props[RANGE_KEY] = "0 4"
    assert run_passes(model, [HoistQuantize(), Tidy()])
    assert ops(model)[:4] == ["Relu", "QuantizeLinear", "Pad", "DequantizeLinear"]
    assert model.graph[1].metadata_props[RANGE_KEY] == "0 4"
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    np.testing.assert_array_equal(evaluate(model, x)[0], before)


def test_padding_with_another_constant_is_not_passed():
    constants = {"p": CONSTANTS["p"], "c": np.float32(0.5), "s": np.float32(0.03), "z": np.uint8(0)}
    model = build(POOLED, constants)
    run_passes(model, [HoistQuantize()])
    assert ops(model)[:3] == ["Relu", "Pad", "QuantizeLinear"]


@pytest.mark.parametrize(("value", "nonnegative", "bound"), [(0.0, True, 6.0), (7.0, False, float("inf"))])
def test_zero_padding_keeps_what_is_known_of_a_tensor(value, nonnegative, bound):
    text = "g (float[n, 2, 8, 8] x) => (float[n, 2, 9, 9] y) { r = Clip(x, low, high) y = Pad(r, p, c) }"
    constants = {"low": np.float32(0), "high": np.float32(6), "p": CONSTANTS["p"], "c": np.float32(value)}
    padded = build(text, constants).graph[-1].outputs[0]
    assert (is_nonnegative(padded), upper_bound(padded)) == (nonnegative, bound)


class Same(nn.Module):
    """Inverted bottlenecks with TensorFlow's "same" padding, and a padded max-pool."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(3, 16, 3, 2), nn.BatchNorm2d(16), nn.ReLU6())
        self.pool = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(3, 2))
        self.expand = nn.Sequential(nn.Conv2d(16, 32, 1), nn.BatchNorm2d(32), nn.ReLU6(), nn.ZeroPad2d((1, 2, 1, 2)))
        self.depthwise = nn.Sequential(nn.Conv2d(32, 32, 5, 2, groups=32), nn.BatchNorm2d(32), nn.ReLU6())
        self.project = nn.Sequential(nn.Conv2d(32, 16, 1), nn.Flatten(), nn.Linear(256, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.project(self.depthwise(self.expand(self.pool(self.stem(x)))))


@pytest.fixture(scope="module")
def same(tmp_path_factory) -> Case:
    folder, shape = tmp_path_factory.mktemp("same"), (3, 32, 32)
    program = make_program(trained(Same, shape), shape)
    quantized, ranges = quantize(program, [torch.from_numpy(smooth(32, shape, s)) for s in (10, 11)])
    inputs = (TensorSpec(name="x", dtype="float32", shape=("batch", *shape)),)
    outputs = (TensorSpec(name="logits", dtype="float32", shape=("batch", 10)),)
    export_onnx(program, inputs, outputs, folder / "float.onnx", opset=20)
    export_onnx(quantized, inputs, outputs, folder / "int8.onnx", opset=20, ranges=ranges)
    float_path, int8_path = folder / "float.onnx", folder / "int8.onnx"
    return Case("same", program, quantized, ranges, inputs, outputs, smooth(8, shape, 77), float_path, int8_path)


def test_export_folds_padding_in_float_and_in_int8(same):
    for path in (same.float_path, same.int8_path):
        counts = collections.Counter(node.op_type for node in load_onnx(path).graph)
        assert counts["Pad"] == 1  # the max-pool's
        assert counts["Conv"] == 4


def test_evidence_is_still_found_in_a_folded_graph(same):
    inputs = {"x": same.samples}
    assert first_difference(same.program, same.float_path, inputs, run_reference, 1e-4) is None
    assert first_difference(same.quantized, same.int8_path, inputs, run_reference, 1e-4) is None
    levels = layer_sqnr(same.float_path, same.int8_path, inputs, run_reference).decibels
    assert len(levels) == 5
    assert all(level > 15 for level in levels.values())
    points = activation_points(load_onnx(same.int8_path).graph)
    assert len(points) == len(same.ranges)
    assert all(point.low is not None for point in points)


@pytest.mark.parametrize("name", ["ort-x86", "ort-arm", "openvino", "tensorrt"])
def test_every_dialect_computes_the_same_with_padding(same, tmp_path, name):
    result = apply_dialect(name, same.int8_path, tmp_path / "m.onnx")
    neutral, written = (run_reference(p, {"x": same.samples})["logits"] for p in (same.int8_path, result.path))
    assert np.abs(neutral - written).max() <= 0.1 * np.abs(neutral).max()


def test_onnx_runtime_runs_convolutions_around_padding_in_int8(same, tmp_path):
    apply_dialect("ort-x86", same.int8_path, tmp_path / "m.onnx")
    counts = optimized_ops(tmp_path / "m.onnx", tmp_path / "optimized.onnx")
    assert counts["QLinearConv"] == 4
    padding = next(n for n in load_onnx(tmp_path / "m.onnx").graph if n.op_type == "Pad")
    assert padding.outputs[0].dtype == ir.DataType.UINT8
    assert counts.get("Conv", 0) + counts.get("FusedConv", 0) == 0


def test_a_graph_that_came_as_onnx_is_folded_by_the_dialect(same, tmp_path):
    model = load_onnx(same.int8_path)
    conv = next(n for n in model.graph if n.op_type == "Conv" and n.attributes.get_ints("pads") == (1, 1, 2, 2))
    quantize_node = conv.inputs[0].producer().inputs[0].producer()
    amounts = ir.Value(name="amounts", const_value=ir.tensor(np.array([0, 0, 1, 1, 0, 0, 2, 2])))
    model.graph.register_initializer(amounts)
    padding = ir.node("Pad", [quantize_node.inputs[0], amounts], num_outputs=1)
    padding.outputs[0].name = "padded"
    model.graph.insert_before(quantize_node, padding)
    quantize_node.replace_input_with(0, padding.outputs[0])
    for value in (quantize_node.outputs[0], conv.inputs[0]):
        value.shape = None
    conv.attributes.add(ir.AttrInt64s("pads", [0, 0, 0, 0]))
    save_checked(model, tmp_path / "foreign.onnx")
    for source in ("foreign.onnx", same.int8_path):
        apply_dialect("ort-x86", tmp_path / source, tmp_path / "m.onnx")
        counts = optimized_ops(tmp_path / "m.onnx", tmp_path / "optimized.onnx")
        assert counts["QLinearConv"] == 4


def test_openvino_runs_asymmetric_padding_in_int8(same, tmp_path):
    import openvino

    apply_dialect("openvino", same.int8_path, tmp_path / "m.onnx")
    core = openvino.Core()
    model = core.read_model(tmp_path / "m.onnx")
    model.reshape({model.inputs[0]: [1, 3, 32, 32]})
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    infos = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    kinds = [str(i["runtimePrecision"].value) for i in infos if str(i["layerType"].value) == "Convolution"]
    assert len(kinds) == 4
    assert set(kinds) <= {"u8", "i8"}
    actual = np.concatenate([compiled(same.samples[i : i + 1])[0] for i in range(8)])
    expected = run_reference(tmp_path / "m.onnx", {"x": same.samples})["logits"]
    assert np.abs(actual - expected).max() <= 0.05 * np.abs(expected).max()
