"""Matrix products as ONNX Runtime's own operator: which are, that the sums stay, and that they are counted as int8."""

from __future__ import annotations

import numpy as np
import pytest
from graph_nets import build, ops, run_optimized, run_reference

from edgeopt.backends.coverage.ort import ort_coverage
from edgeopt.backends.graphs import read_graph
from edgeopt.graph.facts import infer_at_batch_1, node_macs
from edgeopt.graph.int8_macs import int8_macs_pct, planned_nodes
from edgeopt.graph.io import load_onnx, save_onnx
from edgeopt.graph.passes.base import run_passes
from edgeopt.graph.passes.integer_products import IntegerProducts
from edgeopt.graph.passes.tidy import Tidy
from edgeopt.graph.qdq import array_of

COLUMNS, ROWS = 24, 40


def product(
    core="m = MatMul(d, k) y = Add(m, bias)", *, dims="n, 5", stored="columns", weight="int8", zero=0, data="uint8"
):
    """y = x W + b with x on a grid of ``data``, and W stored as [ROWS, COLUMNS] or the other way round."""
    shape = (ROWS, COLUMNS) if stored == "columns" else (COLUMNS, ROWS)
    axis = 1 if stored == "columns" else 0
    text = (
        f"g (float[{dims}, {ROWS}] x) => (float[{dims}, {COLUMNS}] y) "
        "{ q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) "
        f"k = DequantizeLinear<axis = {axis}>(weight, ws, wz) {core} }}"
    )
    rng = np.random.default_rng(0)
    integers = rng.integers(-100, 100, shape)
    constants = {
        "s": np.array(0.02, np.float32),
        "z": np.array(3, data),
        "weight": (integers + (128 if weight == "uint8" else 0)).astype(weight),
        "ws": rng.uniform(0.001, 0.002, COLUMNS).astype(np.float32),
        "wz": np.full(COLUMNS, zero, weight),
        "bias": rng.normal(size=COLUMNS).astype(np.float32),
    }
    return build(text, {name: array for name, array in constants.items() if f"{name})" in text or f"{name}," in text})


FORMS = {
    "MatMul and Add": product,
    "MatMul": lambda: product("y = MatMul(d, k)"),
    "Add the other way": lambda: product("m = MatMul(d, k) y = Add(bias, m)"),
    "Gemm": lambda: product("y = Gemm(d, k, bias)", dims="n"),
    "Gemm, transposed": lambda: product("y = Gemm<transB = 1>(d, k, bias)", dims="n", stored="rows"),
    "read twice": lambda: product("m = MatMul(d, k) a = Relu(m) y = Add(m, a)"),
}


@pytest.mark.parametrize("name", FORMS)
def test_the_sums_stay(name, tmp_path):
    model = FORMS[name]()
    run_passes(model, [Tidy()])
    save_onnx(model, tmp_path / "before.onnx")
    assert run_passes(model, [IntegerProducts(), Tidy()])
    save_onnx(model, tmp_path / "after.onnx")
    assert "MatMulIntegerToFloat" in ops(model)
    assert not {"MatMul", "Gemm", "DequantizeLinear"} & set(ops(model))
    shape = (4, ROWS) if "Gemm" in name else (4, 5, ROWS)
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    before = run_reference(tmp_path / "before.onnx", {"x": x})["y"]
    for run in (run_reference, run_optimized):
        np.testing.assert_allclose(run(tmp_path / "after.onnx", {"x": x})["y"], before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(lambda: product(data="int8"), id="a signed input"),
        pytest.param(lambda: product(weight="uint8", zero=128), id="an unsigned weight"),
        pytest.param(lambda: product(zero=1), id="a zero point"),
        pytest.param(lambda: product("y = Gemm<alpha = 0.5>(d, k, bias)", dims="n"), id="a factor"),
        pytest.param(lambda: product("m = MatMul(x, k) y = Add(m, bias)"), id="a float input"),
    ],
)
def test_any_other_product_stays(model):
    made = model()
    run_passes(made, [Tidy()])
    assert not run_passes(made, [IntegerProducts()])


@pytest.fixture
def wide(tmp_path):
    """The weight of a product of 96 columns as the operator reads it, in integers and in units, and its scale."""

    def make(scales, **options):
        rng = np.random.default_rng(0)
        model = build(
            f"g (float[n, {ROWS}] x) => (float[n, {len(scales)}] y) "
            "{ q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) "
            "k = DequantizeLinear<axis = 1>(weight, ws) y = MatMul(d, k) }",
            {
                "s": np.array(0.02, np.float32),
                "z": np.array(3, np.uint8),
                "weight": rng.integers(-128, 128, (ROWS, len(scales))).astype(np.int8),
                "ws": np.asarray(scales, np.float32),
            },
        )
        run_passes(model, [Tidy()])
        step = IntegerProducts(**options)
        assert run_passes(model, [step, Tidy()])
        (node,) = [node for node in model.graph if node.op_type == "MatMulIntegerToFloat"]
        weight, scale = (array_of(node.inputs[index]) for index in (1, 3))
        return step.coarser, weight, scale

    return make


def test_wide_weights_go_on_the_largest_scale_and_none_is_clipped(wide):
    scales = np.random.default_rng(1).uniform(0.001, 0.002, 96)
    _, before, each = wide(scales)
    coarser, after, one = wide(scales, one_scale=True)
    assert (coarser, each.shape, one.shape) == (1, (96,), ())
    assert one == each.max()
    off = np.abs(after * one.astype(np.float64) - before * each.astype(np.float64))
    assert 0.4 * one < off.max() <= 0.5 * one
    largest = int(each.argmax())
    np.testing.assert_array_equal(after[:, largest], before[:, largest])


@pytest.mark.parametrize(
    "scales",
    [pytest.param([*[0.001] * 95, 0.1], id="one column far wider"), pytest.param([0.001, 0.002] * 5, id="few columns")],
)
def test_columns_that_are_not_alike_or_few_keep_their_scales(wide, scales):
    coarser, _, scale = wide(scales, one_scale=True)
    assert coarser == 0
    np.testing.assert_array_equal(scale, np.float32(scales))


def test_what_both_read_is_kept_for_the_other():
    model = product("m = MatMul(d, k) a = ReduceMax(d) y = Add(m, a)")
    assert run_passes(model, [IntegerProducts(), Tidy()])
    assert ops(model).count("DequantizeLinear") == 1


def test_its_multiplications_are_counted_as_int8(tmp_path):
    model = product("m = MatMul(d, k) a = Add(m, bias) r = Relu(a) y = Identity(r)")
    assert run_passes(model, [Tidy(), IntegerProducts(), Tidy()])
    path = tmp_path / "model.onnx"
    save_onnx(model, path)
    assert int8_macs_pct(path).value == 100.0
    (name,) = planned_nodes(path)
    assert name == "MatMul:m"  # what the report says of the product it was written for stays found
    counted = load_onnx(path)
    infer_at_batch_1(counted)
    node = next(node for node in counted.graph if node.name == name)
    assert (node.op_type, node.domain, node_macs(node)) == ("MatMulIntegerToFloat", "com.microsoft", 5 * ROWS * COLUMNS)
    assert len(node.inputs) == 7
    graph = read_graph(path)
    assert graph.quantized == (name,)
    coverage = ort_coverage(path, {}, graph, "1")
    assert coverage is not None
    assert [op.runs_in for op in coverage.ops] == ["int8"]
