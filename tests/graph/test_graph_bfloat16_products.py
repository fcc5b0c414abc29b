"""What int8 leaves in float in bfloat16: which nodes, and that they compute the same but for the rounding."""

from __future__ import annotations

import re

import numpy as np
import onnx_ir as ir
import pytest
from graph_nets import build, run_openvino, run_reference

from edgeopt.graph.io import save_checked
from edgeopt.graph.passes.base import run_passes
from edgeopt.graph.passes.bfloat16_products import Bfloat16Products

RNG = np.random.default_rng(3)
WEIGHTS = {
    "w": RNG.normal(size=(1, 12, 8)).astype(np.float32),
    "r": RNG.normal(size=(1, 12, 4)).astype(np.float32) / 2,
    "u": RNG.normal(size=(1, 12, 3)).astype(np.float32) / 2,
    "q": RNG.normal(size=(8, 8)).astype(np.float32),
    "k": RNG.normal(size=(8, 8)).astype(np.float32),
    "step": np.array(0.05, np.float32),
    "zero": np.array(0, np.int8),
    "scale": np.array(0.35, np.float32),
    "mask": np.triu(np.full((5, 5), np.finfo(np.float32).min), 1).astype(np.float32),
    "finite": np.triu(np.full((5, 5), -1e4), 1).astype(np.float32),
}
CELLS = {
    "GRU": "g (float[5, 2, 8] x) => (float[5, 1, 2, 4] y) { y, h = GRU<hidden_size = 4, linear_before_reset = 1>(x, w, r) }",
    "LSTM": "g (float[5, 2, 8] x) => (float[5, 1, 2, 3] y) { y, h, c = LSTM<hidden_size = 3>(x, w, u) }",
}
PROJECTED = "a = MatMul(x, q) b = MatMul(x, k) t = Transpose<perm = [0, 2, 1]>(b) s = MatMul(a, t)"
HEAD = "g (float[2, 5, 8] x) => (float[2, 5, 8] y)"


def graph(text):
    body = text.partition("{")[2]
    return build(text, {name: array for name, array in WEIGHTS.items() if re.search(rf"[(,] ?{name}[,)]", body)})


def narrow(model):
    """The operators that give bfloat16, in order; casts between the types aside."""
    made = [n for n in model.graph if any(v.dtype == ir.DataType.BFLOAT16 for v in n.outputs)]
    return [node.op_type for node in made if node.op_type != "Cast"]


def written(model, tmp_path):
    save_checked(model, tmp_path / "float.onnx")
    assert run_passes(model, [Bfloat16Products()])
    save_checked(model, tmp_path / "narrow.onnx")
    return tmp_path / "float.onnx", tmp_path / "narrow.onnx"


def db(one, other):
    return 10 * np.log10(np.square(one).sum() / np.square(one - other).sum())


@pytest.mark.parametrize("op", list(CELLS))
def test_a_recurrent_cell_with_its_weights(tmp_path, op):
    model = graph(CELLS[op])
    plain, brain = written(model, tmp_path)
    assert narrow(model) == [op]
    (cell,) = [node for node in model.graph if node.op_type == op]
    assert {value.dtype for value in cell.inputs if value is not None} == {ir.DataType.BFLOAT16}
    x = {"x": RNG.normal(size=(5, 2, 8)).astype(np.float32)}
    wanted = run_reference(plain, x)["y"]
    assert 40 < db(wanted, run_reference(brain, x)["y"]) < 70  # eight bits of precision
    pytest.importorskip("openvino")
    assert 30 < db(wanted, run_openvino(brain, x["x"])) < 70  # its state is rounded in every step


def test_of_attention_both_products_and_what_lies_between(tmp_path):
    model = graph(f"{HEAD} {{ {PROJECTED} m = Mul(s, scale) p = Softmax<axis = -1>(m) y = MatMul(p, x) }}")
    plain, brain = written(model, tmp_path)
    # the projections have weights, which are int8 elsewhere: they stay
    assert narrow(model) == ["MatMul", "Mul", "Softmax", "MatMul"]
    x = {"x": RNG.normal(size=(2, 5, 8)).astype(np.float32)}
    assert 35 < db(run_reference(plain, x)["y"], run_reference(brain, x)["y"]) < 70


@pytest.mark.parametrize(
    ("mask", "made"),
    [("finite", ["MatMul", "Add", "Softmax", "MatMul"]), ("mask", ["MatMul", "Softmax", "MatMul"])],
)
def test_a_mask_of_float32s_lowest_number_is_added_in_float32(mask, made):
    """It would be minus infinity in bfloat16, and a row of it not a number."""
    model = graph(f"{HEAD} {{ {PROJECTED} m = Add(s, {mask}) p = Softmax<axis = -1>(m) y = MatMul(p, x) }}")
    assert run_passes(model, [Bfloat16Products()])
    assert narrow(model) == made


def test_what_else_reads_the_scores_keeps_what_lies_between_in_float32():
    text = f"g (float[2, 5, 8] x) => (float[2, 5, 8] y, float[2, 5, 5] p) {{ {PROJECTED} p = Softmax<axis = -1>(s) y = MatMul(p, x) }}"
    model = graph(text)
    assert run_passes(model, [Bfloat16Products()])
    assert narrow(model) == ["MatMul", "MatMul"]
    assert [value.dtype for value in model.graph.outputs] == [ir.DataType.FLOAT] * 2


def test_a_product_of_two_quantized_tensors_stays_in_int8():
    quantized = " ".join(
        f"{n}_q = QuantizeLinear({n}, step, zero) {n}_d = DequantizeLinear({n}_q, step, zero)" for n in "at"
    )
    body = "a = Relu(x) t = Transpose<perm = [0, 2, 1]>(x) " + quantized + " y = MatMul(a_d, t_d)"
    model = graph(f"g (float[2, 5, 8] x) => (float[2, 5, 5] y) {{ {body} }}")
    assert not run_passes(model, [Bfloat16Products()])


def test_a_net_of_layers_alone_stays_as_it_is():
    model = graph(f"{HEAD} {{ a = MatMul(x, q) e = Relu(a) y = MatMul(e, k) }}")
    before = [node.op_type for node in model.graph]
    assert not run_passes(model, [Bfloat16Products()])
    assert [node.op_type for node in model.graph] == before
    assert model.opset_imports[""] < 22
