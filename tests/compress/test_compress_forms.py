"""Programs in unusual forms: decomposed, shared weights, in-place ops, several inputs, attention with a mask."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from compress_nets import NETS, dataset, export, make_config, make_context, make_target, run, samples, seeded, sqnr_db
from torch import nn
from torch._export.converter import TS2EPConverter
from torch.nn import functional as F

from edgeopt.compress.normalize import normalize
from edgeopt.compress.registry import STEPS
from edgeopt.core.spec import TensorSpec

STEP = STEPS["quantize"]


def quantize(model, *shapes, target=None, **config):
    data = dataset(*(samples(64, shape, seed=i) for i, shape in enumerate(shapes)))
    return STEP.run(model, make_config(**config), make_context(data, target))


def distance_db(model, result, *shapes, batch=32):
    x = [samples(batch, shape, seed=10 + i) for i, shape in enumerate(shapes)]
    return sqnr_db(run(model.program, *x), run(result.model.program, *x))


def decided(result, op=None):
    return {d.name: d.precision for d in result.decisions if op in (None, d.op)}


def replace(model, program):
    return dataclasses.replace(model, program=program)


@pytest.mark.parametrize("name", ["resnet", "mlp", "vit", "conv1d"])
def test_a_decomposed_program_is_quantized_like_the_original(nets, name):
    model, shape = nets[name]
    core = replace(model, model.program.run_decompositions())
    result, original = quantize(core, shape), quantize(model, shape)
    assert distance_db(model, result, shape) > 25
    weighted = ("conv", "linear")
    assert [decided(result, op) for op in weighted] == [decided(original, op) for op in weighted]


@pytest.mark.parametrize("name", NETS)
def test_normalizing_changes_no_output(nets, name):
    model, shape = nets[name]
    x = torch.from_numpy(samples(8, shape))
    for program in (model.program, model.program.run_decompositions()):
        with torch.no_grad():
            got = normalize(program, split_attention=True)(x)
            torch.testing.assert_close(got, program.module()(x), rtol=1e-5, atol=1e-5)


class SharedConv(nn.Module):
    """One convolution, three readers: two BatchNorms of their own, and one that reads it bare (as detectors do)."""

    def __init__(self):
        super().__init__()
        self.conv, self.norms = nn.Conv2d(3, 6, 3), nn.ModuleList(nn.BatchNorm2d(6) for _ in range(2))

    def forward(self, x):
        y = self.conv(x)
        return self.norms[0](y) + self.norms[1](self.conv(x * 0.5)) + 0.1 * y


def test_a_convolution_shared_by_batch_norms_and_others_keeps_its_meaning():
    shape = (3, 8, 8)
    model = export(seeded(SharedConv, shape), shape)
    result = quantize(model, shape)
    assert distance_db(model, result, shape) > 25
    assert not [n for n in result.model.program.graph.nodes if "batch_norm" in str(n.target)]
    assert list(decided(result, "conv")) == ["conv", "conv.2", "conv.3"]


class TwiceTheSame(nn.Module):
    """A layer called twice with one weight and one bias: each call has an input range and an error of its own."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        return self.linear(torch.relu(self.linear(x)) * 5)


def test_a_layer_called_twice_is_corrected_per_call():
    model = export(seeded(TwiceTheSame, (8,)), (8,))
    result = quantize(model, (8,), bias_correction=True)
    assert decided(result) == {"linear": "int8", "linear.2": "int8"}
    assert distance_db(model, result, (8,)) > 25


class InPlace(nn.Module):
    """A view, read before and after an in-place ReLU of its base: two values in one node, which need a Q each."""

    def __init__(self):
        super().__init__()
        self.first, self.before, self.after = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        x = self.first(x)
        view = x.unsqueeze(1)
        y = self.before(view)
        F.relu(x, inplace=True)
        return torch.cat([y, self.after(view)], 1)


def test_a_tensor_changed_in_place_is_quantized_before_and_after():
    model = export(seeded(InPlace, (8,)), (8,))
    result = quantize(model, (8,))
    assert distance_db(model, result, (8,)) > 25
    assert len(result.ranges) == 3


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(16, 48)

    def forward(self, x):
        q, k, v = self.qkv(x).unsqueeze(1).chunk(3, -1)
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def test_causal_attention_stays_in_float_with_the_reason():
    model = export(seeded(Masked, (5, 16)), (5, 16))
    result = quantize(model, (5, 16))
    (attention,) = [d for d in result.decisions if d.op == "attention"]
    assert (attention.precision, attention.reason) == ("float", "masked or causal attention is one op here")
    assert distance_db(model, result, (5, 16)) > 25


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(6, 8), nn.Linear(4, 8)

    def forward(self, a, b):
        return torch.cat([self.left(a), self.right(b)], 1)


def test_two_inputs_keep_their_order():
    model = export(seeded_two(), (6,), (4,))
    result = quantize(model, (6,), (4,))
    assert [s.name for s in result.model.inputs] == ["a", "b"]
    assert result.model.program.graph_signature.user_inputs == ("a", "b")
    assert distance_db(model, result, (6,), (4,)) > 25


def seeded_like(kind):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind().eval()


def seeded_two():
    return seeded_like(TwoInputs)


class Awkward(nn.Module):
    """Weights that are computed, constant factors, a sum with itself: what must be judged one by one."""

    def __init__(self):
        super().__init__()
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8))
        self.matrix = nn.Parameter(torch.randn(8, 8))
        self.stack = nn.Parameter(torch.randn(2, 8, 8))
        self.maker = nn.Linear(8, 64)
        self.wide = nn.Linear(8, 8).double()

    def forward(self, x):
        y = self.normed(x) @ self.matrix
        y = y + F.linear(x, self.maker(x).mean(0).reshape(8, 8))
        y = y + (y.unsqueeze(0) @ self.stack).sum(0)
        y = y + self.wide(x.double()).float()
        return y + y


def test_awkward_layers_are_judged_one_by_one():
    model = export(seeded(Awkward, (8,)), (8,), batch=4)
    result = quantize(model, (8,))
    reasons = {d.name: (d.precision, d.reason) for d in result.decisions if d.op != "add"}
    # What no module owns has its node's name, whose number is torch's choice.
    reasons = {name.partition("_")[0]: judged for name, judged in reasons.items()}
    eight = "8-bit weights per output channel, 8-bit input"
    assert reasons == {
        "normed": ("int8", eight),
        "matrix": ("int8", eight),
        "maker": ("int8", eight),
        "linear": ("float", "its weight is computed from the input"),
        "matmul": ("float", "one factor is a constant that is no matrix of weights"),
        "wide": ("float", "computes in float64, not float32"),
    }
    assert distance_db(model, result, (8,), batch=4) > 25


def test_transposed_convolutions_are_quantized_only_where_the_target_lists_them():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ConvTranspose2d(4, 2, 3, stride=2), nn.BatchNorm2d(2))
    shape = (3, 8, 8)
    model = export(seeded(lambda: net, shape), shape)
    left = quantize(model, shape)
    assert decided(left, "conv_transpose") == {"1": "float"}
    both = make_target(quantized_ops=("conv", "conv_transpose"))
    result = quantize(model, shape, target=both, bias_correction=True)
    assert decided(result, "conv_transpose") == {"1": "int8"}
    assert distance_db(model, result, shape) > 25


def test_a_weight_with_nan_stays_in_float():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model = export(net.eval(), (4,))
    from edgeopt.compress.layers import find_layers

    graph = normalize(model.program, split_attention=False)
    with torch.no_grad():
        graph.get_parameter("1.weight")[0, 0] = float("nan")
    layers = find_layers(graph, make_target().quantization, make_config())
    assert [(x.quantized, x.reason) for x in layers][1] == (False, "its weight holds NaN or infinity")


def test_a_channel_that_is_always_zero_is_no_trouble():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)).eval()
    with torch.no_grad():
        net[0].weight.zero_()
        net[0].bias.fill_(-1.0)
    model = export(net, (4,))
    result = quantize(model, (4,), observer="histogram", bias_correction=True)
    x = samples(8, (4,))
    np.testing.assert_allclose(run(result.model.program, x), run(model.program, x), atol=1e-6)


class Nested(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(4, 8), nn.Linear(5, 8)

    def forward(self, x, *, extra):
        return {"sum": self.left(x["left"]) + self.right(extra)}


def test_nested_and_keyword_inputs_keep_their_form():
    net, batch = seeded_like(Nested), torch.export.Dim("batch", min=1, max=64)
    example = {"left": torch.zeros(3, 4)}, torch.zeros(3, 5)
    shapes = {"x": {"left": {0: batch}}, "extra": {0: batch}}
    program = torch.export.export(net, example[:1], {"extra": example[1]}, dynamic_shapes=shapes)
    inputs = tuple(
        TensorSpec(name=name, dtype="float32", shape=("batch", width)) for name, width in (("x_left", 4), ("extra", 5))
    )
    model = dataclasses.replace(export(seeded_two(), (6,), (4,)), program=program, inputs=inputs)
    result = quantize(model, (4,), (5,), bias_correction=True)
    x, extra = {"left": torch.from_numpy(samples(7, (4,)))}, torch.from_numpy(samples(7, (5,)))
    with torch.no_grad():
        got, expected = (p.module()(x, extra=extra)["sum"] for p in (result.model.program, program))
    assert sqnr_db(expected.numpy(), got.numpy()) > 25


def test_a_program_made_from_torchscript_keeps_the_static_shape_that_its_inputs_declare():
    kind, shape = NETS["mobilenet"]
    net, example = seeded(kind, shape), torch.zeros(2, *shape)
    program = TS2EPConverter(torch.jit.trace(net, (example,)), (example,)).convert()
    model = dataclasses.replace(export(net, shape, batch=2), program=program)
    result = quantize(model, shape)
    (x,) = [
        n for n in result.model.program.graph.nodes if n.name == result.model.program.graph_signature.user_inputs[0]
    ]
    assert tuple(x.meta["val"].shape) == (2, *shape)
    assert "features.1.expand.0" in decided(result, "conv")
    assert distance_db(model, result, shape, batch=2) > 25


def test_a_quantized_program_survives_saving(tmp_path):
    model = export(seeded(*NETS["mlp"]), (20,))
    result = quantize(model, (20,), bias_correction=True)
    torch.export.save(result.model.program, tmp_path / "q.pt2")
    loaded, x = torch.export.load(tmp_path / "q.pt2"), samples(8, (20,))
    np.testing.assert_array_equal(run(loaded, x), run(result.model.program, x))
    assert set(result.ranges) <= {n.name for n in loaded.graph.nodes}
