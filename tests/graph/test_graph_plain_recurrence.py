"""Recurrent nets as torch writes them and as the pass leaves them: fewer operations, the same outputs for any batch and length."""

from __future__ import annotations

import re

import numpy as np
import onnx_ir as ir
import pytest
import torch
from graph_nets import build, run_reference
from torch import nn

from edgeopt.core.spec import TensorSpec
from edgeopt.graph import export
from edgeopt.graph.export import export_onnx
from edgeopt.graph.io import load_onnx, save_onnx
from edgeopt.graph.passes.plain_recurrence import PlainRecurrence
from edgeopt.graph.passes.tidy import Tidy

AROUND = {"Shape", "Expand", "Slice", "Concat", "Mul", "Reshape"}


class Recurrent(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.cell = getattr(nn, kind)(6, 5, batch_first=True, **options)
        self.head = nn.Linear(5 * (2 if options.get("bidirectional") else 1), 3)

    def forward(self, x):
        return self.head(self.cell(x)[0].mean(1))


class Started(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = nn.GRU(6, 5, batch_first=True)
        self.start = nn.Parameter(torch.randn(1, 1, 5))

    def forward(self, x):
        return self.cell(x, self.start.expand(-1, x.shape[0], -1))[0].mean(1)


def exported(net, path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = net().eval()
    x = torch.randn(3, 9, 6, generator=torch.Generator().manual_seed(0))
    program = torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    inputs = (TensorSpec(name="x", dtype="float32", shape=("batch", 9, 6)),)
    outputs = (TensorSpec(name="y", dtype="float32", shape=("batch", net(x).shape[1])),)
    export_onnx(program, inputs, outputs, path, opset=20)
    return path


def ops(path):
    return [node.op_type for node in load_onnx(path).graph]


@pytest.mark.parametrize(
    "options", [{}, {"bidirectional": True}, {"num_layers": 2}], ids=["one", "both ways", "two layers"]
)
@pytest.mark.parametrize("kind", ["GRU", "LSTM"])  # torch exports no other
def test_the_outputs_are_those_of_the_graph_as_torch_writes_it(tmp_path, monkeypatch, kind, options):
    plain = exported(lambda: Recurrent(kind, **options), tmp_path / "plain.onnx")
    monkeypatch.setattr(export, "PlainRecurrence", Tidy)
    written = exported(lambda: Recurrent(kind, **options), tmp_path / "written.onnx")
    x = np.random.default_rng(0).normal(size=(4, 9, 6)).astype(np.float32)
    np.testing.assert_array_equal(run_reference(plain, {"x": x})["y"], run_reference(written, {"x": x})["y"])
    kept = [sum(op in AROUND for op in ops(path)) for path in (plain, written)]
    assert kept[0] <= kept[1] - 6
    states = [value for node in load_onnx(plain).graph if node.op_type == kind for value in node.inputs[5:]]
    assert not any(value is not None for value in states)


def test_a_state_that_is_not_zero_stays(tmp_path):
    path = exported(Started, tmp_path / "a.onnx")
    (cell,) = [node for node in load_onnx(path).graph if node.op_type == "GRU"]
    assert cell.inputs[5] is not None


GRU = """
g (float[9, N, 6] x) => (float[9, N, 5] y) {
    a = GRU<hidden_size=5>(x, w, r, "", "", %s)
    t = Transpose<perm=[0, 2, 1, 3]>(a)
    s = Shape(t)
    %s
    y = Reshape(t, shape)
}"""
WEIGHTS = {
    "w": np.ones((1, 15, 6), np.float32),
    "r": np.ones((1, 15, 5), np.float32),
    "zero": np.zeros((1, 1, 5), np.float32),
    "nearly": np.full((1, 1, 5), 1e-30, np.float32),
    **{name: np.array([at], np.int64) for name, at in (("i0", 0), ("i1", 1), ("i2", 2), ("i3", 3), ("five", 5))},
}
JOINED = """
    b0 = Gather(s, i0) b1 = Gather(s, i1) b2 = Gather(s, i2) b3 = Gather(s, i3) m = Mul(b2, b3)
    shape = Concat<axis=0>(b0, b1, m)
"""
TURNED = JOINED.replace("Concat<axis=0>(b0, b1, m)", "Concat<axis=0>(b1, b0, m)")
FIXED = JOINED.replace("Concat<axis=0>(b0, b1, m)", "Concat<axis=0>(b0, b1, five)")


def rewritten(state, shape, text=GRU):
    text = text % (state, shape)
    model = build(
        text, {name: array for name, array in WEIGHTS.items() if re.search(rf"\b{name}\b", text.partition("{")[2])}
    )
    PlainRecurrence()(model)
    return model


def kinds(model):
    return [node.op_type for node in model.graph]


@pytest.mark.parametrize(("shape", "squeezed"), [(JOINED, True), (TURNED, False), (FIXED, False)])
def test_only_the_shape_that_joins_directions_is_read_as_such(shape, squeezed):
    model = rewritten("zero", shape)
    assert ("Squeeze" in kinds(model)) is squeezed


@pytest.mark.parametrize(("state", "stays"), [("zero", False), ("nearly", True)])
def test_only_a_state_of_zeros_goes(state, stays):
    (cell,) = [node for node in rewritten(state, JOINED).graph if node.op_type == "GRU"]
    assert (cell.inputs[5] is not None) is stays


def test_a_shape_that_depends_on_another_tensor_stays(tmp_path):
    other = JOINED.replace("b1 = Gather(s, i1)", "n = Shape(x) b1 = Gather(n, i1)")
    model = rewritten("zero", other)
    assert "Squeeze" not in kinds(model)
    save_onnx(model, tmp_path / "a.onnx")
    assert isinstance(load_onnx(tmp_path / "a.onnx"), ir.Model)
