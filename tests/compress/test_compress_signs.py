"""Activations that are never negative, by what the graph computes, are quantized to uint8 from zero on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from compress_nets import dataset, export, make_config, make_context, make_target, run, samples, sqnr_db
from torch import nn
from torch.nn import functional

from edgeopt.compress.registry import STEPS
from edgeopt.graph.export import export_onnx
from edgeopt.graph.io import load_onnx
from edgeopt.graph.qdq import activation_points
from edgeopt.pipeline.host import run_onnx

UNSIGNED = make_target(unsigned_activations=True)
QUANTIZE = torch.ops.quantized_decomposed.quantize_per_tensor.default


def quantized(model, shape, target=UNSIGNED, **config):
    return STEPS["quantize"].run(model, make_config(**config), make_context(dataset(samples(128, shape)), target))


def grids(result):
    """(smallest, largest, dtype) of every activation, in the graph's order."""
    return [n.args[3:] for n in result.model.program.graph.nodes if n.target == QUANTIZE]


INT8, UINT8 = (-128, 127, torch.int8), (0, 255, torch.uint8)


class Between(nn.Module):
    """A function between two convolutions; the second's input is what it makes."""

    def __init__(self, function):
        super().__init__()
        self.first, self.second, self.function = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), function

    def forward(self, x):
        y = self.first(x)
        return self.second(self.function(y)).mean((2, 3))


@pytest.mark.parametrize(
    ("function", "grid"),
    [
        (torch.relu, UINT8),
        (functional.relu6, UINT8),
        (torch.sigmoid, UINT8),
        (lambda y: y.clamp(0, 4), UINT8),
        (lambda y: y.clamp(min=0.0), UINT8),
        (lambda y: functional.max_pool2d(torch.relu(y), 2), UINT8),
        (lambda y: functional.avg_pool2d(torch.relu(y), 2), UINT8),
        (lambda y: torch.relu(y).transpose(2, 3), UINT8),
        (lambda y: torch.relu(y) * torch.sigmoid(y), UINT8),
        (lambda y: torch.relu(y) + torch.abs(y), UINT8),
        (lambda y: y, INT8),
        (functional.leaky_relu, INT8),
        (functional.gelu, INT8),
        (lambda y: y.clamp(-1, 4), INT8),
        (lambda y: y.clamp(max=4.0), INT8),
        (lambda y: torch.relu(y) - 1, INT8),
        (lambda y: torch.relu(y) + y, INT8),
        (lambda y: torch.relu(y) * y, INT8),
    ],
)
def test_the_operations_in_front_decide(function, grid):
    torch.manual_seed(0)
    result = quantized(export(Between(function), (3, 8, 8)), (3, 8, 8))
    assert grids(result)[-1] == grid


class Joined(nn.Module):
    """Two branches on one grid, behind a concatenation."""

    def __init__(self, function):
        super().__init__()
        self.one, self.other, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3), nn.Conv2d(16, 8, 1)
        self.function = function

    def forward(self, x):
        return self.last(torch.cat([torch.relu(self.one(x)), self.function(self.other(x))], 1)).mean((2, 3))


@pytest.mark.parametrize(("function", "grid"), [(torch.relu, UINT8), (functional.leaky_relu, INT8)])
def test_what_shares_a_grid_is_unsigned_together_or_not_at_all(function, grid):
    torch.manual_seed(0)
    target = make_target(unsigned_activations=True, quantized_ops=("conv", "linear", "concat"), residual_add="none")
    result = quantized(export(Joined(function), (3, 8, 8)), (3, 8, 8), target)
    assert set(grids(result)[1:]) == {grid}


def test_without_the_rule_all_are_int8(nets):
    model, shape = nets["mobilenet"]
    assert set(grids(quantized(model, shape, make_target()))) == {INT8}


@pytest.mark.parametrize("observer", ["minmax", "histogram", "entropy"])
def test_the_outputs_come_closer_and_the_graph_computes_them(nets, observer, tmp_path):
    model, shape = nets["mobilenet"]
    results = [quantized(model, shape, target, observer=observer) for target in (make_target(), UNSIGNED)]
    x = samples(64, shape, seed=2)
    reference = run(model.program, x)
    signed, unsigned = (sqnr_db(reference, run(result.model.program, x)) for result in results)
    assert unsigned > signed + 1
    made = results[1]
    export_onnx(
        made.model.program, model.inputs, model.outputs, tmp_path / "m.onnx", opset=UNSIGNED.opset, ranges=made.ranges
    )
    got = run_onnx(tmp_path / "m.onnx", {model.inputs[0].name: x})[model.outputs[0].name]
    assert sqnr_db(run(made.model.program, x), got) > 30
    points = activation_points(load_onnx(tmp_path / "m.onnx").graph)
    assert {point.dtype for point in points} == {"int8", "uint8"}
    made_by = [(point, point.tensor.producer()) for point in points]
    clipped = [point for point, node in made_by if node is not None and node.op_type == "Clip"]
    assert clipped
    assert all(np.float32(point.scale) * np.float32(255) <= 6 for point in clipped)
