"""Layers in float arithmetic on int8 weights: the same values, small on disk, and float in ONNX Runtime itself."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graph_nets import build, optimized_ops, run_optimized, run_reference

from edgeopt.graph.dialects import apply_dialect
from edgeopt.graph.io import load_onnx, save_checked
from edgeopt.graph.passes.base import run_passes
from edgeopt.graph.passes.cast_weights import CastWeights
from edgeopt.graph.passes.quantize_bias import QuantizeBias


def cast(source, target, slow=lambda node, weight: True, *, bias=True):
    model = load_onnx(source)
    step = CastWeights(slow)
    run_passes(model, [*([QuantizeBias()] if bias else []), step])
    save_checked(model, target)
    return [node.op_type for node in step.changed]


@pytest.fixture
def net(case):
    made = case("mobilenet")
    return made.float_path, made.int8_path, made.samples


def test_every_value_stays_the_same(net, tmp_path):
    _, int8_path, samples = net
    cast(int8_path, tmp_path / "none.onnx", lambda node, weight: False)
    assert "Conv" in cast(int8_path, tmp_path / "all.onnx")
    before, after = (run_reference(tmp_path / f"{name}.onnx", {"x": samples})["logits"] for name in ("none", "all"))
    np.testing.assert_array_equal(before, after)


def test_weights_stay_int8_on_disk(net, tmp_path):
    _, int8_path, _ = net
    cast(int8_path, tmp_path / "all.onnx")
    stored = [
        i for i in onnx.load(tmp_path / "all.onnx").graph.initializer if len(i.dims) == 4 and np.prod(i.dims[1:]) > 1
    ]
    assert stored
    assert {i.data_type for i in stored} == {onnx.TensorProto.INT8}


def test_the_runtime_runs_exactly_what_was_cast_in_float(net, tmp_path):
    """Between quantized tensors ONNX Runtime would quantize a float weight again, per tensor, and change the results."""
    _, int8_path, samples = net
    result = apply_dialect("ort-wasm", int8_path, tmp_path / "wasm.onnx")
    told = [event.node for event in result.events if "in float on int8 weights" in event.message]
    kept = onnx.load(tmp_path / "wasm.onnx").graph.node
    ops = optimized_ops(tmp_path / "wasm.onnx", tmp_path / "optimized.onnx")
    floats = sum(count for op, count in ops.items() if op in ("Conv", "FusedConv", "Gemm", "FusedGemm"))
    assert floats == len(told)
    assert ops["QLinearConv"] == sum(node.op_type == "Conv" for node in kept) - (floats - 1)  # one Gemm
    reference = run_reference(tmp_path / "wasm.onnx", {"x": samples})["logits"]
    optimized = run_optimized(tmp_path / "wasm.onnx", {"x": samples})["logits"]
    step = np.ptp(reference) / 255
    assert np.abs(optimized - reference).max() <= 2 * step


def test_depthwise_and_narrow_convolutions_and_gemm_are_cast_for_the_web_and_no_others(net, tmp_path):
    _, int8_path, _ = net
    apply_dialect("ort-wasm", int8_path, tmp_path / "wasm.onnx")
    model = load_onnx(tmp_path / "wasm.onnx")
    seen = set()
    for node in model.graph:
        if node.op_type in ("Conv", "Gemm"):
            producer = node.inputs[1].producer()
            shape = list(node.inputs[1].shape)
            products = np.prod(shape[1:])
            narrow = node.op_type == "Gemm" or products < 60 or (node.attributes.get_int("group", 1) > 1 == shape[1])
            assert producer.op_type == ("Mul" if narrow else "DequantizeLinear"), (node.name, shape)
            seen.add((node.op_type, narrow))
    assert {("Conv", True), ("Conv", False), ("Gemm", True)} <= seen


CONV = """
agraph (float[n, 2, 4, 4] x) => (float[n, 2, 4, 4] y) {
  q = QuantizeLinear (x, s, z)
  d = DequantizeLinear (q, s, z)
  w = DequantizeLinear <axis = 0> (wq, ws, wz)
  y = Conv <group = 2, pads = [1, 1, 1, 1]> (d, w)
}
"""
FIELDS = {
    "s": np.float32(0.1),
    "z": np.uint8(128),
    "wq": np.arange(18, dtype=np.int8).reshape(2, 1, 3, 3) - 9,
    "ws": np.array([0.1, 0.2], np.float32),
    "wz": np.zeros(2, np.int8),
}


def test_a_convolution_without_a_bias_gets_one_of_zeros(tmp_path):
    model = build(CONV, FIELDS)
    step = CastWeights(lambda node, weight: True)
    assert run_passes(model, [step])
    (node,) = step.changed
    assert node.inputs[2].producer().op_type == "DequantizeLinear"
    save_checked(model, tmp_path / "m.onnx")
    save_checked(build(CONV, FIELDS), tmp_path / "before.onnx")
    x = np.random.default_rng(0).normal(size=(2, 2, 4, 4)).astype(np.float32)
    before, after = (run_reference(tmp_path / f"{name}.onnx", {"x": x})["y"] for name in ("before", "m"))
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(
    "changes",
    [{"wz": np.array([0, 1], np.int8)}, {"wq": FIELDS["wq"].astype(np.uint8) + 9, "wz": np.zeros(2, np.uint8)}],
    ids=["asymmetric", "uint8"],
)
def test_weights_of_another_form_are_left_alone(changes):
    assert not run_passes(build(CONV, FIELDS | changes), [CastWeights(lambda node, weight: True)])


def test_a_layer_whose_bias_is_float_is_left_alone(net, tmp_path):
    _, int8_path, _ = net
    assert cast(int8_path, tmp_path / "m.onnx", bias=False) == []
