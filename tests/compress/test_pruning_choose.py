"""What a unit is worth, and how many stay."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pruning_nets import Attention, Shuffled, exported
from torch import nn
from torch.nn import functional as F
from training_nets import split

from edgeopt.compress.calibrate import Feed
from edgeopt.compress.pruning.channels import trace_channels
from edgeopt.compress.pruning.choose import choose, least, rooms, stairs
from edgeopt.compress.pruning.importance import score_units
from edgeopt.core.errors import DataError, RecipeError
from edgeopt.core.spec import TensorSpec
from edgeopt.recipes.schema import Prune


class Chain(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = nn.Conv2d(2, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 32, 1)
        self.head = nn.Linear(32, 3)

    def forward(self, x):
        x = F.relu(self.norm(self.first(x)))
        return self.head(F.relu(self.second(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def channels():
    return trace_channels(exported(Chain(), 2, 6, 6))


def feed_of(count=16, *, labels=True, scale=1.0):
    rng = np.random.default_rng(0)
    x = (scale * rng.normal(size=(count, 2, 6, 6))).astype(np.float32)
    given = split("train", x, rng.integers(0, 3, count) if labels else None)
    spec = TensorSpec(name="x", dtype="float32", shape=("batch", 2, 6, 6))
    return Feed(split=given, specs=(spec,), limit=count, size=4, smallest=1)


def prune(**options):
    return Prune.model_validate({"importance": "l2"} | options)


class TestImportance:
    def test_magnitude_is_that_of_all_weights_that_go_with_the_unit(self, channels):
        state = channels.model.state_dict()
        made = state["first.weight"].double().abs().sum((1, 2, 3)) + state["second.weight"].double().abs().sum(
            (0, 2, 3)
        )
        wanted = (made / made.mean()).numpy()
        np.testing.assert_allclose(score_units(channels, "l1")["first"], wanted, rtol=1e-9)

    def test_bn_scale_is_the_norms_and_where_there_is_none_the_magnitude(self, channels):
        scale = channels.model.state_dict()["norm.weight"].double().abs()
        found = score_units(channels, "bn_scale")
        np.testing.assert_allclose(found["first"], (scale / scale.mean()).numpy(), rtol=1e-9)
        np.testing.assert_allclose(found["second"], score_units(channels, "l2")["second"], rtol=1e-9)

    def test_taylor_is_the_squared_slope_of_a_gate_on_the_unit(self, channels):
        feed, model = feed_of(), channels.model
        wanted = np.zeros(16)
        for batch in feed.split.batches(4, 16):
            gate = torch.ones(16, requires_grad=True)
            x = torch.from_numpy(batch.inputs[0])
            x = F.relu(F.batch_norm(F.conv2d(x, model.first.weight, model.first.bias), *(
                getattr(model.norm, name) for name in ("running_mean", "running_var", "weight", "bias")
            )))  # fmt: skip
            x = F.relu(F.conv2d(x * gate[:, None, None], model.second.weight, model.second.bias)).mean((2, 3))
            loss = F.cross_entropy(F.linear(x, model.head.weight, model.head.bias), torch.from_numpy(batch.targets))
            wanted += torch.autograd.grad(loss, gate)[0].double().numpy() ** 2 / 4
        np.testing.assert_allclose(score_units(channels, "taylor", feed=feed)["first"], wanted, rtol=1e-3)

    def test_taylor_does_without_labels(self, channels):
        scores = score_units(channels, "taylor", feed=feed_of(labels=False))
        assert scores["first"].sum() > 0

    def test_random_is_seeded(self, channels):
        one, again, other = (score_units(channels, "random", seed=seed)["first"] for seed in (1, 1, 2))
        assert (one == again).all()
        assert (one != other).any()

    def test_a_loss_that_is_no_number_is_named(self, channels):
        with pytest.raises(DataError, match=r"The loss is no number.*nan on batch 1"):
            score_units(channels, "taylor", feed=feed_of(scale=float("inf")))

    def test_the_modules_gradients_stay_untouched(self, channels):
        score_units(channels, "taylor", feed=feed_of())
        assert all(parameter.grad is None for parameter in channels.model.parameters())


class TestChoice:
    @settings(max_examples=60, deadline=None)
    @given(
        macs=st.floats(0.35, 0.95),
        multiple=st.sampled_from([1, 2, 4, 8]),
        scope=st.sampled_from(["global", "uniform"]),
        seed=st.integers(0, 99),
    )
    def test_what_is_left_is_within_the_share_in_multiples_and_the_least_goes(
        self, channels, macs, multiple, scope, seed
    ):
        config = prune(importance="random", macs_ratio=macs, scope=scope)
        scores = score_units(channels, "random", seed=seed)
        kept = choose(channels, config, scores, multiple=multiple)
        removed = least(scores, kept)
        assert channels.macs(removed) <= 1.02 * macs * channels.macs({})
        for name, count in kept.items():
            assert count % multiple == 0
            gone, order = set(removed[name]), np.argsort(scores[name])
            assert gone == set(order[: len(gone)].tolist())

    def test_uniform_takes_the_same_share_of_every_group(self, channels):
        scores = score_units(channels, "l2")
        kept = choose(channels, prune(ratio=0.5, scope="uniform"), scores, multiple=1)
        assert kept == {"first": 8, "second": 16}

    def test_global_takes_from_the_group_that_matters_least(self, channels):
        scores = score_units(channels, "l2") | {"second": np.full(32, 1e-3)}
        kept = choose(channels, prune(ratio=0.5, floor=0.25), scores, multiple=1)
        assert kept == {"first": 16, "second": 8}

    def test_rounds_shrink_by_the_same_factor_each(self, channels):
        scores, config = score_units(channels, "l2"), prune(ratio=0.75, scope="uniform")
        halves = choose(channels, config, scores, multiple=1, share=0.5)
        assert halves == {"first": 8, "second": 16}

    def test_heads_are_rounded_by_what_they_hold(self):
        heads = trace_channels(exported(Attention(), 5, 6)).group("qkv")
        assert stairs(heads, multiple=8, least=1) == (4, 2)
        assert stairs(heads, multiple=4, least=1) == (4, 3, 2, 1)

    def test_widths_are_taken_as_given(self, channels):
        assert choose(channels, prune(widths={"second": 5}), score_units(channels, "l2"), multiple=8) == {"second": 5}


class TestRefusals:
    def test_more_than_the_floors_allow(self, channels):
        with pytest.raises(RecipeError, match=r"So few units cannot be reached.*10.0 % asked for, 50.0 % is the least"):
            choose(channels, prune(ratio=0.9, floor=0.5), score_units(channels, "l2"), multiple=1)

    def test_a_skip_pattern_that_matches_nothing(self, channels):
        with pytest.raises(RecipeError, match=r"skip matches no layer.*'frist'.*nearest names: first"):
            rooms(channels, prune(ratio=0.5, skip=("frist",)), multiple=1)

    def test_a_model_whose_every_group_ends_in_an_output(self):
        channels = trace_channels(exported(nn.Sequential(nn.Linear(4, 6)), 4))
        with pytest.raises(RecipeError, match=r"Nothing of this model can be pruned.*it is an output of the model"):
            rooms(channels, prune(ratio=0.5), multiple=1)

    def test_heads_that_no_longer_divide(self):
        channels = trace_channels(exported(Attention(), 5, 6))
        with pytest.raises(RecipeError, match=r"Nothing of this model can be pruned.*qkv: 4 units, 16 channels"):
            rooms(channels, prune(ratio=0.5, skip=("stem", "up")), multiple=32)

    def test_an_unknown_group_and_an_impossible_width(self, channels):
        scores = score_units(channels, "l2")
        with pytest.raises(RecipeError, match=r"'frist'.*nearest names: first"):
            choose(channels, prune(widths={"frist": 3}), scores, multiple=1)
        with pytest.raises(RecipeError, match=r"cannot keep as many units.*17 of 16"):
            choose(channels, prune(widths={"first": 17}), scores, multiple=1)
        with pytest.raises(RecipeError, match="Give 1 to 16"):
            choose(channels, prune(widths={"first": 0}), scores, multiple=1)

    @pytest.mark.parametrize("ratio", [0, 1, -0.1, 1.5])
    def test_a_ratio_outside_of_0_to_1(self, ratio):
        with pytest.raises(ValueError, match="ratio"):
            prune(ratio=ratio)

    @pytest.mark.parametrize("options", [{}, {"ratio": 0.5, "macs_ratio": 0.5}])
    def test_not_exactly_one_amount(self, options):
        with pytest.raises(ValueError, match="exactly one of ratio, macs_ratio, latency_ratio and widths"):
            prune(**options)

    def test_rounds_without_a_training(self):
        with pytest.raises(ValueError, match="training belongs between rounds"):
            prune(ratio=0.5, rounds=2)


def test_groups_of_a_grouped_convolution_stay_equal():
    channels = trace_channels(exported(Shuffled(), 3, 8, 8))
    kept = choose(channels, prune(ratio=0.3), score_units(channels, "l2"), multiple=1)
    assert 0 < sum(kept.values()) < sum(group.units for group in channels.groups)
