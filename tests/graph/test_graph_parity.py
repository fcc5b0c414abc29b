"""Differences are measured right and named where they begin."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir
import pytest
import torch
from graph_nets import run_reference
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.core.errors import GraphError
from edgeopt.graph.io import load_onnx, save_onnx
from edgeopt.graph.parity import compare, first_difference, first_difference_onnx, layer_sqnr, sqnr_db
from edgeopt.graph.taps import tap
from edgeopt.recipes.schema import ParityLimits

LIMITS = ParityLimits()


def judge(reference, output, kind="float", *, classification=False, limits=LIMITS):
    return compare(
        [reference], [output], stage="onnx", against="torch", kind=kind, limits=limits, classification=classification
    )


def figures(row):
    return {m.name: m.value for m in row.figures}


@given(seed=st.integers(0, 99), noise=st.floats(1e-6, 10), gain=st.floats(1e-3, 1e3))
def test_the_figures_are_numpys(seed, noise, gain):
    rng = np.random.default_rng(seed)
    a = (rng.normal(size=(8, 5)) * gain).astype(np.float32)
    b = (a + rng.normal(size=(8, 5)) * noise).astype(np.float32)
    x, y = a.astype(np.float64), b.astype(np.float64)
    found = figures(judge(a, b, "int8", classification=True))
    assert found["max_abs"] == pytest.approx(np.abs(x - y).max())
    if not np.array_equal(x, y):
        assert found["sqnr_db"] == pytest.approx(10 * np.log10((x**2).sum() / ((x - y) ** 2).sum()))
        expected = (x * y).sum() / np.linalg.norm(x) / np.linalg.norm(y)
        assert found["cosine"] == pytest.approx(expected, abs=1e-9)
    assert found["top1_agreement_pct"] == pytest.approx(100 * (x.argmax(1) == y.argmax(1)).mean())


def test_identical_outputs_have_no_sqnr_and_pass():
    row = judge(np.ones((2, 3)), np.ones((2, 3)), "int8")
    assert row.passed
    assert [m.reason for m in row.figures if m.name == "sqnr_db"] == ["identical"]
    assert figures(row)["cosine"] == 1.0


def test_a_float_difference_counts_relative_to_the_outputs_size():
    large = np.full((2, 3), 1000.0)
    assert judge(large, large + 0.9).passed
    assert not judge(large, large + 1.1).passed
    small = np.full((2, 3), 0.01)
    assert judge(small, small + 0.0001, limits=ParityLimits(float_cosine=0.9)).passed
    assert not judge(small, small + 0.002).passed


def test_a_float_stage_must_point_the_same_way():
    reference = np.array([[1e-4, 0.0]])
    assert not judge(reference, np.array([[0.0, 1e-4]])).passed


@pytest.mark.parametrize(("gap", "passed"), [(0.31, True), (0.33, False)])
def test_an_int8_stage_is_judged_by_its_sqnr(gap, passed):
    reference = np.ones((4, 3))
    assert judge(reference, reference + gap, "int8").passed is passed  # 10 dB is a gap of 0.316


def test_an_int8_classifier_is_judged_by_its_predictions_too():
    reference = np.eye(10) * 0.01 + 1
    output = reference.copy()
    output[:2] = np.roll(output[:2], 1, 1)
    row = judge(reference, output, "int8", classification=True)
    assert figures(row)["top1_agreement_pct"] == pytest.approx(80)
    assert figures(row)["sqnr_db"] > 30
    assert not row.passed
    assert "equal predictions on at least 90 %" in row.tolerance


def test_the_worst_output_counts():
    good, bad = np.ones((2, 2)), np.array([[1.0, 0], [0, 1]])
    row = compare([good, good], [good, bad], stage="s", against="t", kind="float", limits=LIMITS, classification=False)
    assert not row.passed
    assert figures(row)["max_abs"] == 1.0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_stage_that_is_not_finite_is_an_error(value):
    with pytest.raises(GraphError, match="of onnx holds NaN or infinity"):
        judge(np.ones((1, 2)), np.array([[1.0, value]]))
    with pytest.raises(GraphError, match="of torch holds NaN or infinity"):
        judge(np.array([[1.0, value]]), np.ones((1, 2)))


@pytest.mark.parametrize(
    ("reference", "output", "message"),
    [
        ([np.ones(2)], [np.ones(3)], "another shape"),
        ([np.ones((0, 2))], [np.ones((0, 2))], "no elements"),
        ([np.ones(2)], [], "cannot be compared"),
    ],
)
def test_outputs_that_cannot_be_compared_are_refused(reference, output, message):
    with pytest.raises(GraphError, match=message):
        compare(reference, output, stage="s", against="t", kind="float", limits=LIMITS, classification=False)


def test_a_classifier_needs_rows_of_classes():
    with pytest.raises(GraphError, match="not \\[samples, classes\\]"):
        judge(np.ones((2, 3, 4)), np.ones((2, 3, 4)), classification=True)


def test_silence_has_a_finite_level():
    assert math.isfinite(sqnr_db(np.zeros(3), np.ones(3)))


@pytest.mark.parametrize("net", ["vit", "resnet"])
def test_a_faithful_export_has_no_first_difference(case, net):
    net = case(net)
    assert first_difference(net.program, net.float_path, {"x": net.samples}, run_reference, 1e-4) is None


def spoil(source, path, which):
    """Another weight in the ``which``-th convolution; returns the name of what it makes."""
    model = load_onnx(source)
    node = [n for n in model.graph if n.op_type == "Conv"][which]
    value = node.inputs[1]
    value.const_value = ir.tensor(value.const_value.numpy() * np.float32(1.5), name=value.name)
    save_onnx(model, path)
    return node.outputs[0].name


def test_the_first_difference_to_torch_is_the_spoilt_node(case, tmp_path):
    net = case("resnet")
    name = spoil(net.float_path, tmp_path / "m.onnx", 4)
    text = first_difference(net.program, tmp_path / "m.onnx", {"x": net.samples}, run_reference, 1e-3)
    assert text.startswith(f"{name} (Conv in blocks.1.bn2): largest difference")


def test_the_first_difference_of_two_graphs_is_the_spoilt_node(case, tmp_path):
    net = case("resnet")
    name = spoil(net.float_path, tmp_path / "m.onnx", 4)
    text = first_difference_onnx(net.float_path, tmp_path / "m.onnx", {"x": net.samples}, run_reference, 1e-3)
    assert text.startswith(f"{name} (Conv): largest difference")
    assert first_difference_onnx(net.float_path, net.float_path, {"x": net.samples}, run_reference, 0) is None


def test_names_that_decomposition_gives_away_are_not_confused(tmp_path):
    from test_graph_export import Renamed, X, Y

    from edgeopt.graph.export import export_onnx

    torch.manual_seed(0)
    x = np.random.default_rng(0).normal(size=(4, 20)).astype(np.float32)
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    program = torch.export.export(Renamed().eval(), (torch.from_numpy(x),), dynamic_shapes=shapes)
    export_onnx(program, [X], [Y], tmp_path / "m.onnx", opset=20)
    assert first_difference(program, tmp_path / "m.onnx", {"x": x}, run_reference, 1e-4) is None


def test_layer_sqnr_is_that_of_the_layers_outputs(case):
    net = case("vit")
    levels = layer_sqnr(net.float_path, net.int8_path, {"x": net.samples}, run_reference).decibels
    layers = [n.name for n in net.program.graph.nodes if str(n.target).startswith(("aten.conv", "aten.linear"))]
    assert list(levels) == layers
    # the last layer's output is the graph's
    reference = run_reference(net.float_path, {"x": net.samples})["logits"].astype(np.float64)
    output = run_reference(net.int8_path, {"x": net.samples})["logits"]
    assert levels[layers[-1]] == pytest.approx(sqnr_db(reference, output), abs=1e-6)
    assert all(15 < level < 70 for level in levels.values())


def test_layer_sqnr_does_not_depend_on_how_many_samples_are_run_at_once(case, monkeypatch):
    net = case("resnet")
    samples = {"x": np.concatenate([net.samples, net.samples[::-1]])}
    runs = []

    def counted(path, inputs):
        runs.append(len(inputs["x"]))
        return run_reference(path, inputs)

    wide = layer_sqnr(net.float_path, net.int8_path, samples, counted).decibels
    assert runs == [8, 8, len(samples["x"]) - 8, len(samples["x"]) - 8]
    monkeypatch.setattr("edgeopt.graph.layers._ROOM", 0)
    narrow = layer_sqnr(net.float_path, net.int8_path, samples, run_reference).decibels
    assert narrow == pytest.approx(wide, abs=1e-4)


def test_layer_sqnr_of_large_values_takes_some_samples_and_says_how_many(case, monkeypatch):
    net = case("resnet")
    whole = layer_sqnr(net.float_path, net.int8_path, {"x": net.samples}, run_reference)
    assert whole.samples == len(net.samples)
    monkeypatch.setattr("edgeopt.graph.layers._ENOUGH", 1)
    few = layer_sqnr(net.float_path, net.int8_path, {"x": net.samples}, run_reference)
    assert few.samples == 8
    first = layer_sqnr(net.float_path, net.int8_path, {"x": net.samples[:8]}, run_reference)
    assert few.decibels == first.decibels


def test_a_graph_compared_with_itself_is_identical_in_every_layer(case):
    net = case("resnet")
    levels = layer_sqnr(net.float_path, net.float_path, {"x": net.samples[:8]}, run_reference).decibels
    assert set(levels.values()) == {math.inf}
    assert len(levels) == 22


def test_layers_of_two_nets_are_not_paired(case):
    with pytest.raises(GraphError, match="same weighted layers"):
        layer_sqnr(case("mlp").float_path, case("pooled").int8_path, {"x": case("mlp").samples}, run_reference)


def test_a_value_that_is_not_there_cannot_be_looked_at(case):
    with pytest.raises(GraphError, match="no float32 value"):
        tap(case("mlp").float_path, ["nowhere"], {"x": case("mlp").samples}, run_reference)
