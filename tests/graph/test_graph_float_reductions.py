"""Reductions over three dimensions that stay float: what OpenVINO computes of them is what the graph says."""

from __future__ import annotations

import numpy as np
import pytest
from graph_nets import build, ops, run_openvino, run_reference

from edgeopt.graph.dialects import apply_dialect
from edgeopt.graph.io import save_onnx
from edgeopt.graph.passes.base import run_passes
from edgeopt.graph.passes.float_reductions import FloatReductions

STEP = 0.05


def reduced(end, dims="n, 32, 12", result="float[n, 32]"):
    text = f"g (float[{dims}] x) => ({result} y) {{ q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) {end} }}"
    axes = {"last": np.array([2], np.int64), "space": np.array([2, 3], np.int64)}
    grid = {"s": np.array(STEP, np.float32), "z": np.array(0, np.int8)}
    return build(text, grid | {name: array for name, array in axes.items() if name in end})


MEAN = "y = ReduceMean<keepdims = 0>(d, last)"
REDUCTIONS = {
    "a mean": (MEAN, "float[n, 32]"),
    "a global pool": ("y = GlobalAveragePool(d)", "float[n, 32, 1]"),
    "a largest value": ("y = ReduceMax<keepdims = 0>(d, last)", "float[n, 32]"),
    "a mean that is read twice": (
        "m = ReduceMean<keepdims = 0>(d, last) p = QuantizeLinear(m, s, z) e = DequantizeLinear(p, s, z) y = Add(m, e)",
        "float[n, 32]",
    ),
}


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("batch", [1, 64])
def test_openvino_computes_what_the_graph_says(name, batch, tmp_path):
    end, result = REDUCTIONS[name]
    save_onnx(reduced(end, result=result), tmp_path / "neutral.onnx")
    written = apply_dialect("openvino", tmp_path / "neutral.onnx", tmp_path / "written.onnx")
    assert not written.same_points
    x = np.random.default_rng(1).normal(size=(batch, 32, 12)).astype(np.float32)
    neutral, said = (run_reference(path, {"x": x})["y"] for path in (tmp_path / "neutral.onnx", written.path))
    np.testing.assert_allclose(said, neutral, atol=2 * STEP)
    for _ in range(3):  # what it reads beyond its accumulators is another thing each time
        np.testing.assert_allclose(run_openvino(written.path, x), said, atol=STEP if "twice" in name else 1e-5)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(
            lambda: reduced("m = ReduceMean(d, last) y = QuantizeLinear(m, s, z)", result="int8[n, 32, 1]"), id="quantized"
        ),
        pytest.param(lambda: reduced("y = ReduceMean(d, space)", "n, 8, 5, 5", "float[n, 8, 1, 1]"), id="four dimensions"),
        pytest.param(lambda: reduced("y = Softmax(d)", result="float[n, 32, 12]"), id="no reduction"),
    ],
)  # fmt: skip
def test_any_other_grid_stays(model):
    assert not run_passes(model(), [FloatReductions()])


def test_another_reader_keeps_the_grid():
    model = reduced("m = ReduceMean(d, last) y = Sub(d, m)", result="float[n, 32, 12]")
    assert run_passes(model, [FloatReductions()])
    assert ops(model).count("DequantizeLinear") == 1
    alone = reduced(MEAN)
    assert run_passes(alone, [FloatReductions()])
    assert ops(alone) == ["ReduceMean"]
