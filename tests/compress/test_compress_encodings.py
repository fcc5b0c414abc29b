"""Activations leave symmetric int8 for uint8 where they use it half: from zero on, or with a zero point."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from compress_nets import dataset, export, make_config, make_context, make_target, run, samples, sqnr_db
from torch import nn
from torch.nn import functional

from edgeopt.compress.registry import STEPS
from edgeopt.graph.dialects.registry import apply_dialect
from edgeopt.graph.export import export_onnx
from edgeopt.graph.io import load_onnx
from edgeopt.graph.qdq import activation_points
from edgeopt.pipeline.host import run_onnx

UNSIGNED = make_target(asymmetric_activations=True)
QUANTIZE = torch.ops.quantized_decomposed.quantize_per_tensor.default


def quantized(model, shape, target=UNSIGNED, **config):
    return STEPS["quantize"].run(model, make_config(**config), make_context(dataset(samples(128, shape)), target))


def grids(result):
    """The kind of grid of every activation, in the graph's order."""
    return [_kind(n.args[2:]) for n in result.model.program.graph.nodes if n.target == QUANTIZE]


def _kind(arguments):
    zero, *ends = arguments
    assert tuple(ends) in {(-128, 127, torch.int8), (0, 255, torch.uint8)}
    if ends[0]:
        return INT8 if zero == 0 else "int8 with a zero point"
    return UINT8 if zero == 0 else SHIFTED


INT8, UINT8, SHIFTED = "symmetric int8", "uint8 from zero on", "uint8 with a zero point"


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
        (lambda y: torch.relu(y).clamp(max=0.5), UINT8),
        (lambda y: functional.max_pool2d(torch.relu(y), 2), UINT8),
        (lambda y: functional.avg_pool2d(torch.relu(y), 2), UINT8),
        (lambda y: torch.relu(y).transpose(2, 3), UINT8),
        (lambda y: functional.pad(functional.relu6(y), (0, 1, 0, 1)), UINT8),
        (lambda y: functional.pad(torch.relu(y), (1, 1, 1, 1), value=2.0), UINT8),
        (lambda y: functional.pad(torch.relu(y), (1, 1, 1, 1), mode="reflect"), UINT8),
        (lambda y: functional.pad(torch.relu(y), (1, 1, 1, 1), value=-0.1), SHIFTED),
        (lambda y: torch.relu(y) * torch.sigmoid(y), UINT8),
        (lambda y: torch.relu(y) + torch.abs(y), UINT8),
        (lambda y: torch.relu(y).square(), UINT8),
        (lambda y: y**2, UINT8),
        (lambda y: y * y, UINT8),
        (lambda y: torch.relu(y) ** 3, UINT8),
        (lambda y: y, INT8),
        (torch.tanh, INT8),
        (lambda y: y.clamp(max=4.0), INT8),
        (lambda y: y**3, INT8),
        (functional.leaky_relu, SHIFTED),
        (functional.gelu, SHIFTED),
        (functional.hardswish, SHIFTED),
        (lambda y: y.clamp(-0.1, 4), SHIFTED),
        (lambda y: torch.relu(y) - 0.1, SHIFTED),
        (lambda y: torch.relu(y) * y, INT8),  # never seen below zero: the dialects look at the graph
        (lambda y: functional.max_pool2d(functional.gelu(y), 2), SHIFTED),
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


@pytest.mark.parametrize(("function", "grid"), [(torch.relu, UINT8), (functional.leaky_relu, SHIFTED)])
def test_what_shares_a_grid_is_unsigned_together_or_not_at_all(function, grid):
    torch.manual_seed(0)
    target = make_target(asymmetric_activations=True, quantized_ops=("conv", "linear", "concat"), residual_add="none")
    result = quantized(export(Joined(function), (3, 8, 8)), (3, 8, 8), target)
    assert set(grids(result)[1:]) == {grid}


class Products(nn.Module):
    """GELU between two linear layers; with ``pooled`` a convolution reads it too."""

    def __init__(self, pooled=False):
        super().__init__()
        self.first, self.second, self.side = nn.Linear(16, 32), nn.Linear(32, 8), nn.Conv1d(4, 4, 3)
        self.pooled = pooled

    def forward(self, x):
        y = functional.gelu(self.first(x))
        z = self.second(y.reshape(y.shape))
        return (z, self.side(y)) if self.pooled else z


@pytest.mark.parametrize(
    ("symmetric", "pooled", "grid"), [(True, False, INT8), (True, True, SHIFTED), (False, False, SHIFTED)]
)
def test_what_linear_layers_alone_read_keeps_a_zero_point_of_0_where_the_target_says_so(symmetric, pooled, grid):
    torch.manual_seed(0)
    target = make_target(asymmetric_activations=True, symmetric_products=symmetric, smallest_linear=0)
    assert grids(quantized(export(Products(pooled), (4, 16)), (4, 16), target))[1] == grid


@pytest.mark.parametrize("dialect", ["ort-x86", "openvino", "ort-arm"])
def test_a_dialect_keeps_the_points_that_were_calibrated(dialect, tmp_path):
    torch.manual_seed(0)
    model = export(Between(functional.gelu), (3, 8, 8))
    made = quantized(model, (3, 8, 8))
    export_onnx(
        made.model.program, model.inputs, model.outputs, tmp_path / "m.onnx", opset=UNSIGNED.opset, ranges=made.ranges
    )
    apply_dialect(dialect, tmp_path / "m.onnx", tmp_path / "d.onnx")
    before, after = (activation_points(load_onnx(tmp_path / name).graph) for name in ("m.onnx", "d.onnx"))
    shifted = next(point for point in before if point.zero_point)
    moved = 128 if dialect == "ort-arm" else 0
    assert (shifted.scale, shifted.zero_point - moved) in {(point.scale, point.zero_point) for point in after}


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
