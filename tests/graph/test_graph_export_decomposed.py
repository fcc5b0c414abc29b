"""A program that has nothing to decompose is exported without being traced again, to the same graph."""

from __future__ import annotations

import contextlib

import numpy as np
import onnx
import pytest
import torch
from graph_nets import run_reference
from torch import nn

from edgeopt.graph import export
from edgeopt.graph.export import export_onnx
from edgeopt.graph.export_decomposed import spare_decomposition


def table_of(program):
    """What ``torch.onnx.export`` asks ``run_decompositions`` for."""
    asked = []

    class Asked(Exception):
        pass

    def run_decompositions(table, **_):
        asked.append(table)
        raise Asked

    spared = spare_decomposition(program)
    spared.run_decompositions = run_decompositions
    with contextlib.suppress(Exception):  # the exporter's own, which wraps the one above
        torch.onnx.export(spared, (), dynamo=True, verbose=False)
    return asked[0]


def traced(monkeypatch, program, table):
    """Whether ``run_decompositions`` of the spared program traces the program."""
    calls = []
    original = torch.export.ExportedProgram.run_decompositions

    def counted(self, *arguments, **options):
        calls.append(self)
        return original(self, *arguments, **options)

    monkeypatch.setattr(torch.export.ExportedProgram, "run_decompositions", counted)
    spare_decomposition(program).run_decompositions(table)
    return calls == [program]


@pytest.mark.parametrize("net", ["resnet", "mobilenet", "mlp", "vit"])
def test_the_graph_is_the_one_that_tracing_gives(case, tmp_path, monkeypatch, net):
    net = case(net)
    before = [(node.name, node.target) for node in net.quantized.graph.nodes]
    paths = {}
    for way, spare in (("spared", spare_decomposition), ("traced", lambda program: program)):
        monkeypatch.setattr(export, "spare_decomposition", spare)
        paths[way] = tmp_path / f"{way}.onnx"
        export_onnx(net.quantized, net.inputs, net.outputs, paths[way], opset=20, ranges=net.ranges)
    assert [(node.name, node.target) for node in net.quantized.graph.nodes] == before
    graphs = [onnx.load(path).graph for path in paths.values()]
    assert [node.op_type for node in graphs[0].node] == [node.op_type for node in graphs[1].node]
    ranges = [[p.value for n in graph.node for p in n.metadata_props if p.key == "edgeopt.range"] for graph in graphs]
    assert ranges[0] == ranges[1]
    outputs = [run_reference(path, {"x": net.samples})["logits"] for path in paths.values()]
    np.testing.assert_array_equal(*outputs)


@pytest.mark.parametrize("net", ["mlp", "vit", "resnet"])
def test_a_program_of_operations_that_onnx_has_is_not_traced(case, monkeypatch, net):
    program = case(net).program
    assert not traced(monkeypatch, program, table_of(program))


class InPlace(nn.Module):
    def forward(self, x):
        y = x + 1
        y.relu_()
        return y


class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        self.count.add_(1)
        return x + self.count


class Pool(nn.Module):
    def __init__(self, pool):
        super().__init__()
        self.pool = pool

    def forward(self, x):
        return self.pool(x)


@pytest.mark.parametrize("net", [InPlace(), Counter(), Pool(nn.AdaptiveAvgPool2d(2))])
def test_what_mutates_and_what_no_mean_can_express_is_traced(monkeypatch, net):
    program = torch.export.export(net.eval(), (torch.zeros(1, 2, 4, 4),))
    assert traced(monkeypatch, program, table_of(program))


@pytest.mark.parametrize(
    ("pool", "shape"), [(nn.AdaptiveAvgPool1d(1), (2, 3, 7)), (nn.AdaptiveAvgPool2d(1), (2, 3, 5, 4))]
)
def test_a_pool_to_one_value_is_written_as_tracing_writes_it(monkeypatch, pool, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    program = torch.export.export(Pool(pool), (x,))
    table = table_of(program)
    mine, its = spare_decomposition(program).run_decompositions(table), program.run_decompositions(table)
    assert [n.target for n in mine.graph.nodes][:-1] == [n.target for n in its.graph.nodes][:-1]
    torch.testing.assert_close(mine.module()(x), its.module()(x), rtol=0, atol=0)
    assert not traced(monkeypatch, program, table)


@pytest.mark.parametrize("affine", [True, False])
def test_a_batch_norm_in_eval_mode_is_written_as_tracing_writes_it(monkeypatch, affine):
    x = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, affine=affine)).eval()
    program = torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    table = table_of(program)
    mine, its = spare_decomposition(program).run_decompositions(table), program.run_decompositions(table)
    assert [n.target for n in mine.graph.nodes][:-1] == [n.target for n in its.graph.nodes][:-1]
    torch.testing.assert_close(mine.module()(x), its.module()(x), rtol=0, atol=0)
    assert not traced(monkeypatch, program, table)


def test_a_batch_norm_that_learns_is_traced(monkeypatch):
    net = nn.BatchNorm2d(3, track_running_stats=False)
    program = torch.export.export(net, (torch.zeros(2, 3, 4, 4),))
    assert traced(monkeypatch, program, table_of(program))
