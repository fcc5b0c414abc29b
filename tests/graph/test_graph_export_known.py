"""What torch's exporter is spared does not change what it makes, and is put back."""

from __future__ import annotations

import contextlib
import subprocess
import sys

import onnx
import pytest
import torch
from torch import nn
from torch.onnx._internal.exporter import _decomp
from torch.onnx._internal.exporter._registration import ONNXRegistry
from torch.onnx._internal.fx.passes import type_promotion

from edgeopt.core.spec import TensorSpec
from edgeopt.graph import export
from edgeopt.graph.export import export_onnx
from edgeopt.graph.export_known import known


class Promotions(nn.Module):
    """Integers beside floats, float16 beside float32, numbers beside tensors: what the exporter promotes."""

    def forward(self, x):
        whole = x.to(torch.int64)
        half = x.to(torch.float16)
        return (whole + x) * 2.5 + (half / 3).to(torch.float32) + whole / 2 + torch.where(x > 0, whole, x)


class Recurrent(nn.Module):
    def __init__(self, steps):
        super().__init__()
        self.cell = nn.GRU(4, 6, batch_first=True)

    def forward(self, x):
        return self.cell(x)[0]


class Rewritten(nn.Module):
    """What the exporter's optimizer has rules for."""

    def forward(self, x):
        y = x.transpose(1, 2).transpose(1, 2).unsqueeze(0).unsqueeze(1).flatten(0, 2)
        y = torch.clamp(torch.relu(y), 0.1, 0.9).to(torch.float64).to(torch.float32)
        a, b = torch.split(y, 2, dim=2)
        return torch.cat([a, b], 2).reshape(2, 20).reshape(2, 5, 4) @ torch.ones(4, 4) + 1


def written(net, x, path, monkeypatch, way):
    monkeypatch.setattr(export, "known", way)
    program = torch.export.export(net.eval(), (x,))
    shape = tuple(x.shape)
    outputs = [TensorSpec(name="y", dtype="float32", shape=tuple(net(x).shape))]
    export_onnx(program, [TensorSpec(name="x", dtype="float32", shape=shape)], outputs, path, opset=20)
    return onnx.load(path)


@pytest.mark.parametrize(
    "net", [Promotions(), Rewritten(), Recurrent(5), nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.GELU())]
)
def test_the_graph_is_the_same(tmp_path, monkeypatch, net):
    x = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    ways = {"known": known, "anew": contextlib.nullcontext}
    mine, its = (written(net, x, tmp_path / f"{name}.onnx", monkeypatch, way) for name, way in ways.items())
    assert mine == its


def test_a_recurrent_cell_is_not_run_step_by_step(tmp_path, monkeypatch):
    seen = []
    run = type_promotion._TypePromotionInterpreter.call_function

    def counted(self, target, args, kwargs):
        seen.append(str(target))
        return run(self, target, args, kwargs)

    monkeypatch.setattr(type_promotion._TypePromotionInterpreter, "call_function", counted)
    written(Recurrent(9), torch.zeros(1, 9, 4), tmp_path / "m.onnx", monkeypatch, known)
    assert "aten.gru.input" not in seen
    written(Recurrent(9), torch.zeros(1, 9, 4), tmp_path / "m.onnx", monkeypatch, contextlib.nullcontext)
    assert "aten.gru.input" in seen


def test_torch_is_as_it_was_afterwards():
    before = ONNXRegistry.from_torchlib, _decomp.create_onnx_friendly_decomposition_table
    interpreter = type_promotion._TypePromotionInterpreter
    with pytest.raises(KeyError), known():
        raise KeyError
    assert (ONNXRegistry.from_torchlib, _decomp.create_onnx_friendly_decomposition_table) == before
    assert type_promotion._TypePromotionInterpreter is interpreter


def test_who_adds_a_translation_adds_it_for_himself():
    with known():
        mine = ONNXRegistry.from_torchlib(opset_version=20)
        mine.register_op(torch.ops.aten.add.Tensor, lambda *_: None)
        assert not any(
            one.is_custom for one in ONNXRegistry.from_torchlib(opset_version=20).functions["aten::add.Tensor"]
        )


def test_the_tables_know_quantization_whatever_was_imported_before():
    code = """
from torch.onnx._internal.exporter._registration import ONNXRegistry
from edgeopt.graph.export_known import known
with known():
    assert "quantized_decomposed::dequantize_per_channel" in ONNXRegistry.from_torchlib(opset_version=20).functions
"""
    subprocess.run([sys.executable, "-c", code], check=True)
