"""Weights of 8 bits for kernels that sum two products in 16: steps wide enough, and no wider than that."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from compress_nets import dataset, make_config, make_context, make_target, samples
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeopt.compress.fake_quant import LearnedWeight, ObservedWeight
from edgeopt.compress.observers import WeightObserver, quantize_weight
from edgeopt.compress.pair_sums import meets_in_pairs, pair_floor, settle
from edgeopt.compress.registry import STEPS
from edgeopt.core.saturation import kernel_rows, overflows, pair_sums
from edgeopt.graph.dialects import apply_dialect
from edgeopt.graph.export import export_onnx
from edgeopt.graph.saturation import prove

SHAPES = st.sampled_from([(5, 7), (6, 1), (4, 3, 3, 3), (3, 6, 2, 2), (4, 8, 1, 1), (3, 5, 4)])


def weight_of(shape, seed, spread=1.0):
    random = np.random.default_rng(seed)
    return torch.from_numpy((random.laplace(size=shape) * spread).astype(np.float32))


def overflowing(stored):
    """Whether int8 weights overflow, as they are or with channels of zeros added up to a multiple of four."""
    layout = "conv" if stored.ndim > 2 else "rows"
    wide = np.pad(stored, [(0, 0), (0, -stored.shape[1] % 4 if stored.ndim > 2 else 0), *[(0, 0)] * (stored.ndim - 2)])
    return any(overflows(pair_sums(kernel_rows(form, layout)), 255).any() for form in (stored, wide))


@given(shape=SHAPES, seed=st.integers(0, 10_000), per_channel=st.booleans())
@settings(max_examples=150, deadline=None)
def test_weights_rounded_to_the_nearest_on_such_a_step_never_overflow(shape, seed, per_channel):
    weight = weight_of(shape, seed)
    floor = pair_floor(weight, per_channel=per_channel)
    stored, scale = quantize_weight(weight, floor, 127, per_channel=per_channel)
    assert not overflowing(stored.numpy())
    largest = weight.abs().flatten(1).amax(1) if per_channel else weight.abs().max()
    assert bool((scale * 63.9 <= largest).all())  # 7 bits would have a step of max|w| / 63


@given(shape=SHAPES, seed=st.integers(0, 10_000))
@settings(max_examples=100, deadline=None)
def test_what_was_rounded_otherwise_is_set_to_the_nearest_only_where_it_would_overflow(shape, seed):
    weight = weight_of(shape, seed)
    nearest, scale = quantize_weight(weight, pair_floor(weight, per_channel=True), 127, per_channel=True)
    steps = weight / scale.reshape(-1, *[1] * (weight.ndim - 1))
    chosen = (
        (steps.sign() * steps.abs().ceil()).clamp(-127, 127).to(torch.int8)
    )  # away from zero: the worst that one can do
    settled = settle(chosen, nearest)
    assert not overflowing(settled.numpy())
    assert bool(((settled == chosen) | (settled == nearest)).all())
    if not overflowing(chosen.numpy()):
        assert torch.equal(settled, chosen)


def test_an_observer_settles_what_adaround_chose():
    weight = torch.tensor([[0.51, 0.51, 0.51, -0.3]])
    observer = WeightObserver(bits=8, per_channel=True, pairs=True)
    observer.rounded = torch.tensor([[65, 64, 65, -30]], dtype=torch.int8)
    assert observer.encode(weight)[0].tolist() == [[64, 64, 65, -30]]


def test_a_weight_alone_or_beside_one_of_the_other_sign_asks_for_nothing():
    weight = torch.tensor([[1.0, -1.0, 0.0, 1.0], [1.0, 1.0, 0.0, 0.0]])
    floor = pair_floor(weight, per_channel=True)
    assert float(floor[0]) == pytest.approx(1 / 128, rel=1e-4)
    assert float(floor[1]) == pytest.approx(2 / 128, rel=1e-4)
    assert float(pair_floor(weight, per_channel=False)) == float(floor[1])


@pytest.mark.parametrize(("shape", "groups", "expected"), [((8, 1, 3, 3), 8, False), ((16, 1, 3, 3), 8, True), ((8, 4, 1, 1), 1, True), ((8, 1), 1, True)])  # fmt: skip
def test_only_depthwise_kernels_do_not_pair(shape, groups, expected):
    assert meets_in_pairs(torch.Size(shape), groups) == expected


@pytest.mark.parametrize("kind", [LearnedWeight, ObservedWeight])
def test_a_trained_step_is_as_wide_as_its_pairs_ask_for(kind):
    weight = weight_of((6, 8, 3, 3), 1)
    trained = kind(WeightObserver(bits=8, per_channel=True, pairs=True), weight)
    stored, scale = trained.encode(weight)
    assert not overflowing(stored.numpy())
    free, _ = kind(WeightObserver(bits=8, per_channel=True), weight).encode(weight)
    assert overflowing(free.numpy())
    np.testing.assert_allclose(trained(weight).detach(), stored.float() * scale.reshape(-1, 1, 1, 1), rtol=1e-6)


def quantized(nets, name, **rules):
    model, shape = nets[name]
    return STEPS["quantize"].run(model, make_config(), make_context(dataset(samples(64, shape)), make_target(**rules)))


def written(result, tmp_path):
    neutral, path = tmp_path / "neutral.onnx", tmp_path / "m.onnx"
    model = result.model
    export_onnx(model.program, model.inputs, model.outputs, neutral, opset=20, ranges=result.ranges)
    return apply_dialect("ort-x86-novnni", neutral, path), prove(path)


@pytest.mark.parametrize("name", ["mobilenet", "mlp"])
def test_a_net_for_such_a_cpu_needs_no_repair_and_says_what_it_got(nets, tmp_path, name):
    result = quantized(nets, name, saturation="repair", quantized_ops=("conv", "linear", "add"))
    dialect, report = written(result, tmp_path)
    assert report.is_safe
    assert dialect.repaired == 0
    repaired, channels = result.stats["channels_repaired"], result.stats["channels"]
    assert 0 < repaired <= channels == report.channels
    (event,) = (e for e in result.events if "16 bits" in e.message)
    assert event.message.startswith(f"{repaired} of {channels} output channels could overflow")


def test_depthwise_weights_keep_all_of_their_range(nets):
    program = quantized(nets, "mobilenet", saturation="repair").model.program
    weights = [w for w in (*program.buffers(), *program.parameters()) if w.dtype == torch.int8 and w.ndim == 4]
    depthwise, others = ([w for w in weights if (w.shape[1] == 1) == is_one] for is_one in (True, False))
    assert depthwise
    assert all((w.flatten(1).abs().amax(1) == 127).all() for w in depthwise)
    assert not all((w.flatten(1).abs().amax(1) == 127).all() for w in others)


def test_without_the_rule_nothing_is_counted(nets):
    result = quantized(nets, "mlp")
    assert "channels_repaired" not in result.stats
    assert not any("16 bits" in event.message for event in result.events)
