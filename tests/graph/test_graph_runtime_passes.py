"""The passes that keep a runtime's fast kernels: what they rewrite, what they leave, and that values stay the same."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from graph_nets import build, ops, run_reference

from edgeopt.graph.io import save_onnx
from edgeopt.graph.passes.average_as_conv import AverageAsConv
from edgeopt.graph.passes.base import run_passes
from edgeopt.graph.passes.drop_branch_points import DropBranchPoints
from edgeopt.graph.passes.drop_output_points import DropOutputPoints
from edgeopt.graph.passes.widen_input import WidenInput


def convolution(channels=3, outputs=16, kernel=3):
    rng = np.random.default_rng(0)
    text = (
        f"g (float[n, {channels}, 9, 9] x) => (float[n, {outputs}, h, w] y) "
        "{ q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) "
        "k = DequantizeLinear<axis = 0>(weight, ws, wz) y = Conv(d, k) }"
    )
    return build(
        text,
        {
            "s": np.array(0.02, np.float32),
            "z": np.array(117, np.uint8),
            "weight": rng.integers(-127, 128, (outputs, channels, kernel, kernel)).astype(np.int8),
            "ws": rng.uniform(0.01, 0.02, outputs).astype(np.float32),
            "wz": np.zeros(outputs, np.int8),
        },
    )


def average(attributes, reader="QuantizeLinear(y0, s, z)"):
    text = (
        "g (float[n, 8, 9, 9] x) => (uint8[n, 8, h, w] y) "
        f"{{ q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) y0 = AveragePool<{attributes}>(d) y = {reader} }}"
    )
    return build(text, {"s": np.array(0.02, np.float32), "z": np.array(117, np.uint8)})


def difference(model, steps, tmp_path, channels):
    """Largest difference that the passes make, as float; and what the graph consists of then."""
    x = np.random.default_rng(1).normal(size=(4, channels, 9, 9)).astype(np.float32)
    save_onnx(model, tmp_path / "a.onnx")
    changed = run_passes(model, steps)
    save_onnx(model, tmp_path / "b.onnx")
    before, after = (run_reference(tmp_path / f, {"x": x})["y"].astype(np.float64) for f in ("a.onnx", "b.onnx"))
    return changed, float(np.abs(before - after).max())


def test_a_colour_image_gets_a_fourth_channel_of_zeros(tmp_path):
    model = convolution()
    changed, largest = difference(model, [WidenInput()], tmp_path, 3)
    assert changed
    assert largest < 1e-5  # float sums of the same products
    assert ops(model).count("Pad") == 1


@pytest.mark.parametrize("form", [{"channels": 4}, {"channels": 1}, {"outputs": 8}, {"outputs": 18}, {"kernel": 1}])
def test_a_convolution_that_would_gain_nothing_keeps_its_input(form, tmp_path):
    changed, largest = difference(convolution(**form), [WidenInput()], tmp_path, form.get("channels", 3))
    assert (changed, largest) == (False, 0.0)


@pytest.mark.parametrize(
    "attributes",
    [
        "kernel_shape = [3, 3]",
        "kernel_shape = [2, 2], strides = [2, 2]",
        "kernel_shape = [3, 3], pads = [1, 1, 1, 1], count_include_pad = 1",
    ],
)
def test_an_average_over_whole_windows_becomes_a_depthwise_convolution(attributes, tmp_path):
    model = average(attributes)
    changed, largest = difference(model, [AverageAsConv()], tmp_path, 8)
    assert changed
    assert "AveragePool" not in ops(model)
    assert largest <= 1  # a mean between two points may round the other way


@pytest.mark.parametrize(
    "attributes",
    [
        "kernel_shape = [3, 3], pads = [1, 1, 1, 1]",  # divided by less at the edges
        "kernel_shape = [2, 2], strides = [2, 2], ceil_mode = 1",
        "kernel_shape = [9, 9]",
    ],
)
def test_any_other_average_stays_as_it_is(attributes, tmp_path):
    changed, largest = difference(average(attributes), [AverageAsConv()], tmp_path, 8)
    assert (changed, largest) == (False, 0.0)


def activated(reader):
    text = (
        "g (float[n, 3, 9, 9] x) => (float[n, 16, h, w] y) "
        f"{{ c = Conv(x, weight) q = QuantizeLinear(c, s, z) d = DequantizeLinear(q, s, z) y = {reader} }}"
    )
    weight = np.random.default_rng(0).normal(size=(16, 3, 3, 3)).astype(np.float32)
    return build(text, {"s": np.array(0.2, np.float32), "z": np.array(0, np.int8), "weight": weight})


@pytest.mark.parametrize("reader", ["HardSwish(d)", "Sigmoid(d)", "Gelu(d)", "LeakyRelu(d)"])
def test_no_grid_stays_between_a_convolution_and_its_activation(reader, tmp_path):
    model = activated(reader)
    changed, largest = difference(model, [DropOutputPoints()], tmp_path, 3)
    assert changed
    assert "QuantizeLinear" not in ops(model)
    assert largest <= 0.1 * 1.5  # half a step, through an activation whose slope is at most 1.5


@pytest.mark.parametrize("reader", ["MaxPool<kernel_shape = [2, 2]>(d)", "GlobalAveragePool(d)"])
def test_a_grid_in_front_of_anything_else_stays(reader, tmp_path):
    model = activated(reader)
    assert not run_passes(model, [DropOutputPoints()])
    assert isinstance(model, ir.Model)


def joined(*, kernel=3, size=9, reader="Add(d, e)", more="", shape="n, 16, h, w"):
    pads = kernel // 2
    text = (
        f"g (float[n, 16, {size}, {size}] x) => (float[{shape}] y) "
        f"<float[n, 16, {size}, {size}] c> "
        "{ p = QuantizeLinear(x, s, z) e = DequantizeLinear(p, s, z) "
        f"c = Conv<pads = [{pads}, {pads}, {pads}, {pads}]>(e, weight) "
        f"q = QuantizeLinear(c, s, z) d = DequantizeLinear(q, s, z) {more} y = {reader} }}"
    )
    weight = np.random.default_rng(0).normal(scale=0.05, size=(16, 16, kernel, kernel)).astype(np.float32)
    return build(text, {"s": np.array(0.05, np.float32), "z": np.array(0, np.int8), "weight": weight})


def test_a_convolution_goes_into_its_residual_addition_unrounded(tmp_path):
    model = joined()
    changed, largest = difference(model, [DropBranchPoints()], tmp_path, 16)
    assert changed
    assert ops(model).count("QuantizeLinear") == 1  # the skip's
    assert 0 < largest <= 0.05 / 2 + 1e-6  # half a step


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(lambda: joined(kernel=1), id="a pointwise convolution"),
        pytest.param(lambda: joined(size=96), id="a large tensor"),
        pytest.param(lambda: joined(reader="Add(d, x)"), id="a skip in float"),
        pytest.param(lambda: joined(reader="Add(d, d)"), id="no skip"),
        pytest.param(lambda: joined(reader="Mul(d, e)"), id="another operator"),
        pytest.param(lambda: joined(more="t = Relu(d)", reader="Sum(d, e, t)"), id="two readers"),
        pytest.param(lambda: joined(more="t = Relu(c)", reader="Sum(d, e, t)"), id="a reader of the convolution"),
    ],
)
def test_any_other_rounding_before_an_addition_stays(model):
    made = model()
    assert not run_passes(made, [DropBranchPoints()])
    assert ops(made).count("QuantizeLinear") == 2
