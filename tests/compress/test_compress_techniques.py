"""Each technique of post-training quantization: what it keeps, what it brings, against NumPy in float64."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from compress_nets import dataset, export, make_config, make_context, make_target, run, samples, seeded, sqnr_db
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from edgeopt.compress.adaround import round_to_output
from edgeopt.compress.calibrate import Feed
from edgeopt.compress.equalize import equalize
from edgeopt.compress.normalize import normalize
from edgeopt.compress.observers import quantize_weight
from edgeopt.compress.patches import patches, weight_matrix
from edgeopt.compress.ranges import SCALE_FLOOR, Histogram, entropy_range
from edgeopt.compress.registry import STEPS
from edgeopt.compress.smooth import smooth
from edgeopt.core.events import ignore_progress
from edgeopt.recipes.schema import AdaRound

STEP = STEPS["quantize"]
A = torch.ops.aten


class Uneven(nn.Module):
    """Convolutions in a row whose channels differ by orders of magnitude, the second one depthwise."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1)
        with torch.no_grad():
            factors = torch.logspace(-2, 2, 8)
            self.a.weight.mul_(factors.reshape(-1, 1, 1, 1))
            self.b.weight.div_(factors.reshape(-1, 1, 1, 1))

    def forward(self, x):
        return self.c(F.relu(self.b(F.relu(self.a(x))))).mean((2, 3))


class Outliers(nn.Module):
    """A LayerNorm with two channels far beyond the others, and two linear layers behind it."""

    def __init__(self):
        super().__init__()
        self.norm, self.q, self.k = nn.LayerNorm(16), nn.Linear(16, 12), nn.Linear(16, 12)
        with torch.no_grad():
            self.norm.weight[3], self.norm.weight[9] = 60.0, 40.0
            self.q.weight[:, [3, 9]] *= 0.02
            self.k.weight[:, [3, 9]] *= 0.02

    def forward(self, x):
        x = self.norm(x)
        return self.q(x) * self.k(x)


@pytest.fixture(scope="module")
def uneven():
    return export(seeded(Uneven, (3, 9, 9)), (3, 9, 9))


def test_equalizing_neighbours_keeps_what_the_net_computes_and_evens_their_channels(uneven):
    graph = normalize(uneven.program, split_attention=False)
    x = torch.from_numpy(samples(8, (3, 9, 9)))
    before = graph(x)
    spread = [float(w.abs().amax((1, 2, 3)).log().std()) for w in (graph.a.weight, graph.b.weight)]
    assert equalize(graph) == 2
    torch.testing.assert_close(graph(x), before, rtol=1e-4, atol=1e-5)
    convs = [n for n in graph.graph.nodes if n.target == A.conv2d.default]
    evened = [float(graph.get_parameter(n.args[1].target).abs().amax((1, 2, 3)).log().std()) for n in convs[:2]]
    assert all(after < 0.5 * once for after, once in zip(evened, spread, strict=True))


def test_a_pair_with_relu6_or_another_reader_between_is_left_alone():
    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c, self.d = (nn.Conv2d(4, 4, 1) for _ in range(4))

        def forward(self, x):
            x = self.b(F.relu6(self.a(x)))
            return self.d(x) + self.c(x)

    graph = normalize(export(seeded(Branch, (4, 5, 5)), (4, 5, 5)).program, split_attention=False)
    assert equalize(graph) == 0


def test_smoothing_keeps_what_the_net_computes_and_evens_its_activations():
    model = export(seeded(Outliers, (5, 16)), (5, 16))
    data = dataset(samples(64, (5, 16)))
    feed = Feed.of(model, model.program, data.splits["calibration"], 64, 16)
    graph = normalize(model.program, split_attention=False)
    x = torch.from_numpy(samples(4, (5, 16)))
    norm = next(n for n in graph.graph.nodes if n.target == A.layer_norm.default)
    before, scale = graph(x), graph.get_parameter(norm.args[2].target).abs().clone()
    with torch.no_grad():
        assert smooth(graph, feed, 0.5, ignore_progress) == 1
    torch.testing.assert_close(graph(x), before, rtol=1e-4, atol=1e-4)
    after = graph.get_parameter(norm.args[2].target).abs()
    assert float(after.max() / after.median()) < 0.5 * float(scale.max() / scale.median())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), terms=st.integers(2, 7))
def test_chosen_integers_are_neighbours_and_no_worse_than_the_nearest_ones(seed, terms):
    random = np.random.default_rng(seed)
    x = random.normal(size=(40, terms)) @ random.normal(size=(terms, terms))
    weight, step = random.normal(size=(3, terms)), random.uniform(0.1, 0.5, (3, 1))
    gram, wanted = x.T @ x + 1e-6 * np.eye(terms), x.T @ (x @ weight.T)
    chosen = round_to_output(*map(torch.from_numpy, (weight, step)), 7, *map(torch.from_numpy, (gram, wanted))).numpy()

    def error(integers):
        return (((integers * step - weight) @ gram) * (integers * step - weight)).sum()

    low = np.clip(np.floor(weight / step), -7, 7)
    assert np.all((chosen == low) | (chosen == np.clip(low + 1, -7, 7)))
    assert error(chosen) <= error(np.clip(np.round(weight / step), -7, 7)) + 1e-9
    # of all choices of up or down, no single flip is better: that is where coordinate descent ends
    for row, column in itertools.product(range(3), range(terms)):
        other = chosen.copy()
        other[row, column] = low[row, column] + np.clip(low + 1, -7, 7)[row, column] - chosen[row, column]
        assert error(chosen) <= error(other) + 1e-9


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv2d(4, 6, 3, stride=2, padding=1), (4, 9, 9)),
        (nn.Conv2d(4, 8, (3, 2), dilation=(2, 1), groups=2), (4, 9, 9)),
        (nn.Conv2d(4, 4, 3, padding="same", groups=4), (4, 6, 7)),
        (nn.Conv1d(3, 5, 4, padding=2, stride=3), (3, 17)),
        (nn.Linear(6, 5), (7, 6)),
        (nn.Linear(6, 5), (6,)),
    ],
)
def test_patches_times_the_weight_matrix_is_the_layer(layer, shape):
    graph = normalize(export(layer.eval(), shape).program, split_attention=False)
    node = next(n for n in graph.graph.nodes if n.op == "call_function")
    x, weight = torch.from_numpy(samples(3, shape)), layer.weight.detach()
    rows = torch.stack(list(patches(node, x, weight)))  # [N, G, R, K]
    made = (rows @ weight_matrix(node, weight).transpose(1, 2)).transpose(2, 3)  # [N, G, O, R]
    expected = layer(x).detach() - (layer.bias.reshape(-1, *[1] * (layer.weight.ndim - 2)).detach())
    if isinstance(layer, nn.Linear):
        expected = expected.reshape(3, -1, 5).transpose(1, 2) if len(shape) > 1 else expected[..., None]
        made = made[:, 0] if len(shape) > 1 else made[:, 0, :, :]
    torch.testing.assert_close(made.reshape(3, -1), expected.reshape(3, -1), rtol=1e-4, atol=1e-5)


def quantized(model, shape, **options):
    data = dataset(samples(64, shape))
    with_labels = make_context(data, make_target())
    return STEP.run(model, make_config(calibration_samples=64, **options), with_labels)


def test_adaround_brings_low_bit_weights_closer_and_keeps_their_neighbours(uneven):
    x = samples(32, (3, 9, 9), seed=5)
    target = make_target(weight_bits=7)
    results = []
    for use in (False, True):
        config = make_config(calibration_samples=64, adaround=AdaRound(use=use, samples=64), assign={})
        results.append(STEP.run(uneven, config, make_context(dataset(samples(64, (3, 9, 9))), target)))
    reference = run(uneven.program, x)
    nearest, chosen = (sqnr_db(reference, run(result.model.program, x)) for result in results)
    assert chosen > nearest
    (trial,) = results[1].trials
    assert (trial.name, trial.kept) == ("adaround", True)


def test_a_technique_on_trial_is_dropped_where_it_does_not_help_and_kept_where_it_does(uneven):
    result = quantized(
        uneven, (3, 9, 9), weight_granularity="tensor", equalize="try", smooth="try", bias_correction="try"
    )
    kept = {trial.name: trial.kept for trial in result.trials}
    assert kept["equalize"]  # one scale per tensor cannot hold channels a thousand times apart
    assert kept["smooth"] is False  # there is no LayerNorm
    (equalized,) = [trial for trial in result.trials if trial.name == "equalize"]
    figures = {side: {m.name: m.value for m in getattr(equalized, side)} for side in ("before", "after")}
    assert figures["after"]["divergence"] < figures["before"]["divergence"]
    assert any("no tuning split" in event.message for event in result.events)


def test_what_is_forced_is_kept_even_where_it_harms(uneven):
    result = quantized(uneven, (3, 9, 9), equalize=True)
    assert [trial.kept for trial in result.trials] == [True]


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.Linear(6, 4)

    def forward(self, x):
        return self.head(F.relu(self.norm(self.conv(x))).mean((2, 3)))


def test_reestimated_batch_norms_give_each_channel_its_mean_and_deviation_back():
    model, shape = export(seeded(Normed, (3, 8, 8)), (3, 8, 8)), (3, 8, 8)
    target, moments = make_target(weight_bits=7), []
    data = dataset(samples(64, shape))
    for use in (False, True):
        config = make_config(calibration_samples=64, reestimate_batchnorm=use, weight_granularity="channel")
        program = STEP.run(model, config, make_context(data, target)).model.program.module()
        conv = next(n for n in program.graph.nodes if n.target == A.conv2d.default)
        seen = {}

        class Look(torch.fx.Interpreter):
            def run_node(self, n, seen=seen, name=conv.name):
                value = super().run_node(n)
                if n.name == name:
                    seen["y"] = value
                return value

        with torch.no_grad():
            Look(program).run(torch.from_numpy(samples(64, shape)), enable_io_processing=False)
        moments.append((seen["y"].mean((0, 2, 3)).numpy(), seen["y"].std((0, 2, 3)).numpy()))
    folded = normalize(model.program, split_attention=False)
    with torch.no_grad():
        net_conv = next(n for n in folded.graph.nodes if n.target == A.conv2d.default)
        assert net_conv is not None
        source = seeded(Normed, shape)
        wanted = source.norm(source.conv(torch.from_numpy(samples(64, shape))))
    mean, deviation = wanted.mean((0, 2, 3)).numpy(), wanted.std((0, 2, 3)).numpy()
    plain, corrected = (np.abs(m - mean).max() + np.abs(d - deviation).max() for m, d in moments)
    assert corrected < plain
    np.testing.assert_allclose(moments[1][0], mean, atol=2e-3)
    np.testing.assert_allclose(moments[1][1], deviation, rtol=2e-3)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), limit=st.sampled_from([7, 127]), per_channel=st.booleans())
def test_a_weight_range_chosen_by_squared_error_is_never_worse_than_the_whole_range(seed, limit, per_channel):
    weight = torch.from_numpy(np.random.default_rng(seed).standard_t(3, (4, 3, 3)).astype(np.float32))
    errors = []
    for kind in ("max", "mse"):
        stored, scale = quantize_weight(
            weight, torch.tensor(SCALE_FLOOR), limit, per_channel=per_channel, weight_range=kind
        )
        step = scale.double().reshape(-1, 1, 1) if per_channel else scale.double()
        errors.append(float((stored.double() * step - weight.double()).square().sum()))
        assert int(stored.abs().max()) <= limit
    assert errors[1] <= errors[0] * (1 + 1e-6)


def test_the_entropy_range_leaves_out_rare_outliers_and_keeps_an_even_distribution():
    random = np.random.default_rng(0)
    bell = random.standard_normal(200_000).astype(np.float32)
    bell[:3] = 40.0
    for values, low, high in ((bell, 3.0, 12.0), (random.uniform(0, 6, 200_000).astype(np.float32), 5.5, 6.0)):
        histogram = Histogram()
        histogram.widen(float(values.min()), float(values.max()))
        histogram.add(values)
        assert low <= entropy_range(histogram)[1] <= high


@pytest.mark.parametrize("observer", ["minmax", "moving_average", "percentile", "histogram", "entropy", "best"])
def test_every_observer_quantizes_the_net_near_to_float(uneven, observer):
    result = quantized(copy.copy(uneven), (3, 9, 9), observer=observer)
    x = samples(32, (3, 9, 9), seed=7)
    assert sqnr_db(run(uneven.program, x), run(result.model.program, x)) > 15.0
