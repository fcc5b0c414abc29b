"""The techniques of post-training quantization against their papers' formulas, written again in NumPy float64."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from compress_nets import Arrays, dataset, export, make_config, make_context, run, samples, seeded
from torch import nn
from torchao.quantization.pt2e.utils import _fuse_conv_bn_

from edgeopt.compress.adaround import round_to_output
from edgeopt.compress.equalize import equalize
from edgeopt.compress.normalize import normalize
from edgeopt.compress.observers import quantize_weight
from edgeopt.compress.prepare import open_session
from edgeopt.compress.ranges import Histogram, entropy_range
from edgeopt.compress.registry import STEPS
from edgeopt.compress.smooth import smooth
from edgeopt.core.events import ignore_progress
from edgeopt.data.contract import Dataset, Split

STEP = STEPS["quantize"]
A = torch.ops.aten


class Uneven(nn.Module):
    """Convolutions, a depthwise one among them, whose channels differ by orders of magnitude."""

    def __init__(self):
        super().__init__()
        self.first, self.deep, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1)
        with torch.no_grad():
            for layer in (self.first, self.deep):
                layer.weight.mul_(torch.logspace(-2, 1, 8)[:, None, None, None])

    def forward(self, x):
        return self.last(torch.relu(self.deep(torch.relu(self.first(x))))).mean((2, 3))


class TokenMixer(nn.Module):
    """A mean over the channels of a linear layer, as wide as the tokens are many: no channel of the next layer is one."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.second(torch.relu(self.first(x)).mean(-1))


class Clipped(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 4, 3), nn.ReLU6(), nn.Conv2d(4, 4, 3))


def graph_of(model):
    graph = normalize(model.program, split_attention=True)
    _fuse_conv_bn_(graph)
    return graph


def outputs(graph, x):
    with torch.no_grad():
        return torch.fx.Interpreter(graph).run(torch.from_numpy(x), enable_io_processing=False)[0].double().numpy()


def weights(graph, target):
    found = [n.args[1].target for n in graph.graph.nodes if n.target is target]
    return [graph.get_parameter(str(name)).detach().double().numpy() for name in found]


def labelled(shape, *, tune=True):
    """A classification set of noise with a tuning split."""
    parts = {"calibration": 1, **({"tune": 2} if tune else {})}
    splits = {
        name: Split(
            name=name,
            source=Arrays(samples(96, shape, seed)),
            indices=np.arange(96),
            how="given",
            fingerprint=f"{seed}" * 64,
        )
        for name, seed in parts.items()
    }
    return Dataset(name="noise", task="classification", splits=splits, fingerprint="f" * 64)


@pytest.mark.parametrize(
    ("net", "shape", "pairs"), [(Uneven, (3, 12, 12), 2), ("mobilenet", None, 0), ("mlp", None, 2)]
)
def test_equalization_keeps_what_the_net_computes(nets, net, shape, pairs):
    model, shape = nets[net] if isinstance(net, str) else (export(seeded(net, shape), shape), shape)
    graph, x = graph_of(model), samples(16, shape)
    found = equalize(graph)
    assert found >= pairs
    wanted = run(model.program, x).astype(np.float64)
    assert np.abs(outputs(graph, x) - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_equalization_gives_both_layers_of_a_pair_equal_channel_ranges():
    graph = graph_of(export(seeded(Uneven, (3, 12, 12)), (3, 12, 12)))
    assert equalize(graph) == 2
    first, deep, last = weights(graph, A.conv2d.default)
    out = [np.abs(w).reshape(8, -1).max(1) for w in (first, deep)]
    into = [np.abs(deep).reshape(8, -1).max(1), np.abs(last).max((0, 2, 3))]
    np.testing.assert_allclose(out[0], into[0], rtol=0.02)
    np.testing.assert_allclose(out[1], into[1], rtol=0.02)


@pytest.mark.parametrize(("net", "shape"), [(Clipped, (3, 8, 8)), (TokenMixer, (6, 6))])
def test_a_pair_that_does_not_scale_is_left_alone(net, shape):
    model = export(seeded(net, shape), shape)
    graph, x = graph_of(model), samples(16, shape)
    assert equalize(graph) == 0
    np.testing.assert_array_equal(outputs(graph, x), run(model.program, x))


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_smoothing_keeps_what_the_net_computes(nets, alpha):
    model, shape = nets["vit"]
    data, x = dataset(samples(64, shape)), samples(16, shape, 3)
    session = open_session(model, make_config(), make_context(data))
    graph = copy.deepcopy(session.graph)
    assert smooth(graph, session.feed, alpha, ignore_progress) == 4
    wanted = run(model.program, x).astype(np.float64)
    assert np.abs(outputs(graph, x) - wanted).max() <= 2e-5 * np.abs(wanted).max()


def test_smoothing_takes_the_scales_of_the_papers_equation_4():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.q, self.v = nn.LayerNorm(6), nn.Linear(6, 4), nn.Linear(6, 4)
            with torch.no_grad():
                self.norm.weight[2] = 40.0  # the outlier

        def forward(self, x):
            y = self.norm(x)
            return self.q(y) * self.v(y)

    net = seeded(Net, (6,))
    model, x = export(net, (6,)), samples(64, (6,))
    session = open_session(model, make_config(), make_context(dataset(x)))
    before = [net.q.weight.detach().double().numpy(), net.v.weight.detach().double().numpy()]
    smooth(session.graph, session.feed, 0.5, ignore_progress)
    mean, power = x.astype(np.float64).mean(1, keepdims=True), x.astype(np.float64).var(1, keepdims=True)
    normed = (x - mean) / np.sqrt(power + 1e-5) * net.norm.weight.detach().double().numpy()
    scale = np.sqrt(np.abs(normed).max(0) / np.maximum(*(np.abs(w).max(0) for w in before)))
    for old, new in zip(before, weights(session.graph, A.linear.default), strict=True):
        np.testing.assert_allclose(new, old * scale, rtol=1e-5)


def _error(values, gram, wanted):
    return np.einsum("ok,kl,ol->o", values, gram, values) - 2 * np.einsum("ok,ko->o", values, wanted)


@pytest.mark.parametrize("seed", range(4))
def test_rounding_to_the_output_beats_the_nearest_and_no_single_flip_is_better(seed):
    rng = np.random.default_rng(seed)
    weight, x = rng.normal(size=(5, 8)), rng.normal(size=(40, 8)) @ rng.normal(size=(8, 8))
    step = np.abs(weight).max(1, keepdims=True) / 7
    gram, wanted = x.T @ x, x.T @ (x @ weight.T)
    chosen = round_to_output(*map(torch.from_numpy, (weight, step)), 7, *map(torch.from_numpy, (gram, wanted))).numpy()
    low, high = (np.clip(np.floor(weight / step) + more, -7, 7) for more in (0, 1))
    assert np.all((chosen == low) | (chosen == high))
    error = _error(chosen * step, gram, wanted)
    nearest = np.clip(np.rint(weight / step), -7, 7) * step
    assert np.all(error <= _error(nearest, gram, wanted) + 1e-9)
    for column in range(8):
        other = chosen.copy()
        other[:, column] = low[:, column] + high[:, column] - chosen[:, column]
        assert np.all(error <= _error(other * step, gram, wanted) + 1e-9)
    # all 256 roundings of each channel: what is found is one that no single flip betters, not always the best there is
    picks = np.array(list(itertools.product((False, True), repeat=8)))
    best = [
        min(_error(np.where(picks, high[o], low[o]) * step[o], gram, np.tile(wanted[:, [o]], 256))) for o in range(5)
    ]
    assert np.all(error >= np.array(best) - 1e-9)
    assert error.sum() < _error(nearest, gram, wanted).sum()


def _migacz(values):
    """The talk's pseudo-code, loop by loop, on |x|: 2,048 bins between 0 and the histogram's last used bin."""
    kept = Histogram()
    kept.widen(float(values.min()), float(values.max()))
    kept.add(values)
    magnitudes = kept.counts[4096:] + kept.counts[:4096][::-1]
    used = int(np.flatnonzero(magnitudes)[-1]) + 1
    merge = max(1, -(-used // 2048))
    bins = [float(sum(magnitudes[i : i + merge])) for i in range(0, used, merge)]
    bins[0] = 0.0
    best = (np.inf, len(bins))
    bins = np.array(bins)
    for size in range(128, len(bins) + 1):
        p, q = bins[:size].copy(), np.zeros(size)
        p[-1] += bins[size:].sum()
        for level in range(128):  # bin i goes to level ⌊i·128/size⌋
            members = slice(-(-level * size // 128), -(-(level + 1) * size // 128))
            filled = bins[members] > 0
            if filled.any():
                q[members] = np.where(filled, bins[members].sum() / filled.sum(), 0.0)
        if q.sum() == 0:
            continue
        seen = p > 0
        p, q = p[seen] / p.sum(), np.maximum(q[seen] / q.sum(), 1e-9)
        best = min(best, (float((p * np.log(p / q)).sum()), size))
    return kept, best[1] * merge * kept.width


@pytest.mark.parametrize("draw", ["normal", pytest.param("laplace", marks=pytest.mark.long)])
def test_the_entropy_range_is_that_of_the_talks_pseudo_code(draw):
    values = getattr(np.random.default_rng(5), draw)(size=3000).astype(np.float32)
    values = values[np.abs(values) < 2.0**-3 * 7]  # few bins in use: the oracle is slow
    kept, threshold = _migacz((values / 16).astype(np.float32))
    low, high = entropy_range(kept)
    assert max(-low, high) == pytest.approx(min(threshold, max(-kept.low, kept.high)))


@pytest.mark.parametrize("bits", [4, 8])
def test_a_weights_range_by_squared_error_is_the_best_of_a_search_in_float64(bits):
    weight = torch.from_numpy(np.random.default_rng(0).standard_t(3, size=(4, 50)).astype(np.float32))
    most = 2 ** (bits - 1) - 1
    floor = torch.tensor(1e-9)
    stored, scale = quantize_weight(weight, floor, most, per_channel=True, weight_range="mse")
    full, widest = quantize_weight(weight, floor, most, per_channel=True)
    exact = weight.double().numpy()

    def error(share):
        step = np.abs(exact).max(1, keepdims=True) * share / most
        return ((np.clip(np.rint(exact / step), -most, most) * step - exact) ** 2).sum(1)

    got = ((stored.double() * scale.double()[:, None]).numpy() - exact) ** 2
    assert np.all(scale.numpy() <= widest.numpy())
    np.testing.assert_allclose(got.sum(1), np.min([error(s) for s in np.linspace(1, 0.5, 51)], 0), rtol=1e-4)
    assert got.sum() <= (((full.double() * widest.double()[:, None]).numpy() - exact) ** 2).sum()


def test_the_same_seed_and_data_round_to_the_same_integers(nets):
    model, shape = nets["conv1d"]
    config = make_config(adaround={"use": True, "samples": 32})
    x = samples(8, shape, 7)
    one, two = (run(STEP.run(model, config, make_context(labelled(shape))).model.program, x) for _ in range(2))
    np.testing.assert_array_equal(one, two)


def test_a_technique_with_nothing_to_work_on_says_so(nets):
    model, shape = nets["mlp"]
    config = make_config(smooth=True, reestimate_batchnorm="try")
    result = STEP.run(model, config, make_context(labelled(shape)))
    assert [(t.name, t.kept, t.before) for t in result.trials] == [
        ("smooth", False, ()),
        ("reestimate_batchnorm", False, ()),
    ]
    assert "no LayerNorms" in result.trials[0].detail


def test_one_scale_for_a_whole_weight_where_the_recipe_says_so(nets):
    model, shape = nets["mlp"]
    program = STEP.run(
        model, make_config(weight_granularity="tensor"), make_context(dataset(samples(64, shape)))
    ).model.program
    targets = [str(n.target) for n in program.graph.nodes]
    assert not any("per_channel" in t for t in targets)


def test_the_moving_average_follows_the_batches_extremes(nets):
    model, shape = nets["mlp"]
    x = samples(96, shape)
    config = make_config(observer="moving_average", momentum=0.25, batch_size=32)
    ranges = STEP.run(model, config, make_context(dataset(x))).ranges
    average = np.array([x[:32].min(), x[:32].max()], np.float64)
    for start in (32, 64):
        part = x[start : start + 32]
        average += 0.25 * (np.array([part.min(), part.max()]) - average)
    np.testing.assert_allclose(next(iter(ranges.values())), average, rtol=1e-6)
