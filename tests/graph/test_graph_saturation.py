"""The proof over graphs: which layers it reads, how large their inputs can be, and what the repair leaves behind."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graph_nets import run_reference
from kernel_cases import CASES, make_case
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper as nh

from edgeopt.core.errors import GraphError
from edgeopt.graph.dialects import apply_dialect
from edgeopt.graph.io import save_onnx
from edgeopt.graph.passes.base import run_passes
from edgeopt.graph.passes.repair_saturation import RepairSaturation
from edgeopt.graph.saturation import prove, prove_model

LARGE = np.full((4, 4), 100, np.int8)


def graph_of(nodes, constants, x=("batch", 4)):
    graph = h.make_graph(
        nodes,
        "g",
        [h.make_tensor_value_info("x", T.FLOAT, x)],
        [h.make_tensor_value_info("y", T.FLOAT, None)],
        [nh.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [h.make_opsetid("", 21), h.make_opsetid("com.microsoft", 1)]
    return ir.serde.deserialize_model(h.make_model(graph, opset_imports=opsets, ir_version=10))


def linear(weight=LARGE, *, before=(), op="MatMul", scale=0.1, zero=0, step=1.0, axis=1, width=None, **attributes):
    """x → ``before`` → Q → DQ → MatMul or Gemm with DQ(weight)."""
    last = before[-1].output[0] if before else "x"
    nodes = [
        *before,
        h.make_node("QuantizeLinear", [last, "scale", "zero"], ["q"]),
        h.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        h.make_node("DequantizeLinear", ["w", "step", "wz"], ["dw"], axis=axis),
        h.make_node(op, ["d", "dw"], ["y"], name="layer", **attributes),
    ]
    step = np.asarray(step, np.float32)
    zeros = np.zeros(step.shape, weight.dtype)
    constants = {"scale": np.float32(scale), "zero": np.uint8(zero), "w": weight, "step": step, "wz": zeros}
    inputs = width or weight.shape[1 if attributes.get("transB") else 0]
    return graph_of(nodes, constants | {"six": np.float32(6), "nil": np.float32(0)}, ("batch", inputs))


def only(model, kernels="onnxruntime"):
    (layer,) = prove_model(model, kernels).layers
    return layer


def computed(model, x, tmp_path):
    save_onnx(model, tmp_path / "m.onnx")
    return run_reference(tmp_path / "m.onnx", {"x": x})["y"]


def test_two_large_weights_of_one_sign_can_overflow_and_the_witness_says_with_what():
    layer = only(linear())
    assert (layer.channels, layer.high, layer.largest, layer.smallest) == (4, 255, 51000, 0)
    assert not layer.is_safe
    witness = layer.witnesses[0]
    assert (witness.channel, witness.positions, witness.weights) == (0, (0, 1), (100, 100))
    assert (witness.value, witness.total) == (255, 51000)


def test_the_sum_counts_over_all_channels_of_a_graph():
    report = prove_model(linear(np.diag([100] * 4).astype(np.int8) + np.int8(1)))
    assert (report.channels, report.overflowing, report.is_safe) == (4, 0, True)


@pytest.mark.parametrize(("op", "attributes", "channels"), [("MatMul", {}, 6), ("Gemm", {}, 6), ("Gemm", {"transB": 1}, 4)])  # fmt: skip
def test_the_reduced_axis_is_that_of_the_operator(op, attributes, channels):
    weight = np.zeros((4, 6), np.int8)
    weight[:2, 0] = 100  # neighbours down a column; along a row they are alone
    layer = only(linear(weight, op=op, **attributes))
    assert layer.channels == channels
    assert layer.is_safe == (channels == 4)


def test_unsigned_weights_and_float_inputs_are_no_matter():
    assert prove_model(linear(np.full((4, 4), 200, np.uint8))).layers == ()
    weight_only = graph_of(
        [h.make_node("DequantizeLinear", ["w", "s"], ["dw"]), h.make_node("MatMul", ["x", "dw"], ["y"])],
        {"w": LARGE, "s": np.float32(1)},
    )
    assert prove_model(weight_only).layers == ()


def test_weights_of_four_bits_are_read_and_safe():
    model = linear()
    model.graph.initializers["w"].const_value = ir.tensor(np.full((4, 4), 7, np.int8))
    assert only(model).largest == 14 * 255


@pytest.mark.parametrize(
    ("before", "options", "high"),
    [
        ([], {}, 255),
        ([h.make_node("Clip", ["x", "nil", "six"], ["c"])], {"scale": 0.1}, 60),
        ([h.make_node("Clip", ["x", "nil", "six"], ["c"])], {"scale": 6 / 255}, 255),
        ([h.make_node("Sigmoid", ["x"], ["c"])], {"scale": 1 / 128, "zero": 10}, 138),
        ([h.make_node("Relu", ["x"], ["c"])], {"scale": 0.1}, 255),
    ],
)
def test_an_input_reaches_as_far_as_the_graph_lets_it(before, options, high):
    assert only(linear(before=before, **options)).high == high


def test_a_narrow_input_makes_large_weights_safe():
    assert only(linear(before=[h.make_node("Clip", ["x", "nil", "six"], ["c"])], scale=0.1)).is_safe


def test_depthwise_layers_are_safe_unless_the_kernel_is_unknown(case, tmp_path):
    apply_dialect("ort-x86", case("mobilenet").int8_path, tmp_path / "m.onnx")
    groups = {n.name: a.i for n in onnx.load(tmp_path / "m.onnx").graph.node for a in n.attribute if a.name == "group"}
    depthwise = [layer for layer in prove(tmp_path / "m.onnx").layers if groups.get(layer.node, 1) > 1]
    assert depthwise
    assert all(layer.is_safe for layer in depthwise)
    assert not all(layer.is_safe for layer in prove(tmp_path / "m.onnx", "unknown").layers if layer.node in groups and groups[layer.node] > 1)  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_integer_operators_are_read_and_their_verdict_covers_what_goes_wrong(name, tmp_path):
    case = make_case(name)
    onnx.save(case.model, tmp_path / "m.onnx")
    (layer,) = prove(tmp_path / "m.onnx").layers
    wrong = set(np.flatnonzero((case.saturating != case.exact).any(0)))
    assert wrong <= {one.channel for one in layer.witnesses}
    assert layer.is_safe != CASES[name][-1]


def test_a_repair_moves_the_outputs_by_less_than_a_step_of_the_weights_and_leaves_nothing_to_overflow(tmp_path):
    weight = np.random.default_rng(0).integers(-127, 128, (32, 6)).astype(np.int8)
    steps = np.linspace(0.01, 0.02, 6).astype(np.float32)
    x = np.random.default_rng(1).uniform(0, 20, (5, 32)).astype(np.float32)
    before = computed(linear(weight, step=steps), x, tmp_path)
    model = linear(weight, step=steps)
    step = RepairSaturation()
    assert run_passes(model, [step])
    assert only(model).is_safe
    assert step.repaired == {"layer": 6}
    assert 1 < step.widest < 2
    after = computed(model, x, tmp_path)
    assert 0 < np.abs(after - before).max() < (2 * x.sum(1, keepdims=True) * steps).max()
    assert 10 * np.log10((before**2).sum() / ((after - before) ** 2).sum()) > 25


@pytest.mark.parametrize(("op", "attributes", "axis"), [("Gemm", {"transB": 1}, 0), ("Gemm", {}, 1), ("MatMul", {}, 1)])
@pytest.mark.parametrize("per_channel", [True, False])
def test_every_form_of_weight_is_repaired(op, attributes, axis, per_channel, tmp_path):
    weight = np.random.default_rng(0).integers(60, 128, (4, 4)).astype(np.int8)
    step = np.full(4, 0.5, np.float32) if per_channel else 0.5
    build = {"weight": weight, "step": step, "op": op, "axis": axis, **attributes}
    x = np.random.default_rng(1).uniform(0, 20, (5, 4)).astype(np.float32)
    before, model = computed(linear(**build), x, tmp_path), linear(**build)
    run_passes(model, [RepairSaturation()])
    assert only(model).is_safe
    np.testing.assert_allclose(computed(model, x, tmp_path), before, rtol=0.05)


def test_a_transposed_weight_is_repaired_in_the_order_in_which_it_is_read(tmp_path):
    def build():
        weight = np.random.default_rng(0).integers(60, 128, (6, 4)).astype(np.int8)
        model = linear(weight, step=np.full(6, 0.5), axis=0, width=4)
        layer = model.graph[-1]
        turned = ir.node("Transpose", [layer.inputs[1]], {"perm": [1, 0]}, num_outputs=1)
        model.graph.insert_before(layer, turned)
        layer.replace_input_with(1, turned.outputs[0])
        return model

    x = np.random.default_rng(1).uniform(0, 20, (5, 4)).astype(np.float32)
    before, model = computed(build(), x, tmp_path), build()
    run_passes(model, [RepairSaturation()])
    assert only(model).is_safe
    assert [node.op_type for node in model.graph] == [
        "QuantizeLinear",
        "DequantizeLinear",
        "DequantizeLinear",
        "MatMul",
    ]
    np.testing.assert_allclose(computed(model, x, tmp_path), before, rtol=0.05)


def test_channels_that_cannot_overflow_keep_their_weights_and_steps():
    weight = np.zeros((4, 3), np.int8)
    weight[:, 0], weight[0, 1] = 127, 127
    model = linear(weight, step=np.array([1, 2, 3], np.float32))
    run_passes(model, [RepairSaturation()])
    dequantize = model.graph[-1].inputs[1].producer()
    new, steps = (dequantize.inputs[i].const_value.numpy() for i in (0, 1))
    np.testing.assert_array_equal(new[:, 1:], weight[:, 1:])
    np.testing.assert_array_equal(steps[1:], [2, 3])
    assert steps[0] > 1


def test_a_weight_with_a_zero_point_is_left_and_said():
    model = linear()
    model.graph.initializers["wz"].const_value = ir.tensor(np.int8(3))
    step = RepairSaturation()
    assert not run_passes(model, [step])
    assert (step.left, step.repaired) == (["layer"], {})


def test_a_pass_that_did_not_repair_is_caught(monkeypatch):
    monkeypatch.setattr("edgeopt.graph.passes.repair_saturation.repair", lambda rows, high: (rows, np.ones(len(rows))))
    with pytest.raises(GraphError, match="can still overflow"):
        run_passes(linear(), [RepairSaturation()])


@pytest.mark.parametrize("net", ["mlp", "resnet"])
def test_the_dialect_repairs_what_could_overflow_and_says_how_many(case, tmp_path, net):
    before = apply_dialect("ort-x86", case(net).int8_path, tmp_path / "before.onnx")
    result = apply_dialect("ort-x86-novnni", case(net).int8_path, tmp_path / "m.onnx")
    report = prove(tmp_path / "m.onnx")
    assert report.is_safe
    assert result.repaired == prove(tmp_path / "before.onnx").overflowing > 0
    (event,) = (event for event in result.events if event not in before.events)
    assert event.kind == "note"
    assert f"could overflow in {result.repaired} of {report.channels} output channels" in event.message


def test_what_the_dialect_cannot_repair_is_warned_about_with_a_witness(case, tmp_path, monkeypatch):
    monkeypatch.setattr(RepairSaturation, "call", lambda self, model: ir.passes.PassResult(model, False))
    events = apply_dialect("ort-x86-novnni", case("mlp").int8_path, tmp_path / "m.onnx").events
    warnings = [event for event in events if event.kind == "warning"]
    assert len(warnings) == 3
    assert "channels may saturate without VNNI: inputs of 255 on weights" in warnings[0].message


def test_a_graph_without_integers_has_nothing_to_say(case, tmp_path):
    assert prove(case("mlp").float_path).layers == ()
    with pytest.raises(GraphError, match="no ONNX file"):
        prove(tmp_path / "nothing.onnx")


def test_reports_are_values():
    report = prove_model(linear())
    assert report == prove_model(linear())
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.layers = ()
