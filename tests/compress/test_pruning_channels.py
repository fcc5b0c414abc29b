"""The dependency groups, held against the one thing that proves them: a cut model that computes what it should."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pruning_nets import Attention, Random, Recurrent, Shuffled, Tied, exported
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgeopt.compress.pruning.channels import trace_channels
from edgeopt.compress.pruning.cut import cut
from edgeopt.compress.pruning.mask import masked
from edgeopt.core.spec import TensorSpec


def some(channels, seed, *, exact=True, whole=False):
    """Random units of every group, never all of them; with ``whole``, all of each group that is a branch."""
    rng = random.Random(seed)
    return {
        group.name: range(group.units)
        if whole and group.branches
        else rng.sample(range(group.units), rng.randint(0, group.units - 1))
        for group in channels.groups
        if group.exact or not exact
    }


def smaller(program, channels, removed, *, batch="batch"):
    shape = tuple(
        next(n for n in program.graph.nodes if n.name == program.graph_signature.user_inputs[0]).meta["val"].shape
    )
    return cut(program, channels, removed, [TensorSpec(name="x", dtype="float32", shape=(batch, *shape[1:]))])


def assert_same(program, removed, channels, x, **options):
    """The pruned program gives what the original gives with the removed units at zero."""
    made = smaller(program, channels, removed, **options)
    wanted, got = masked(channels, removed)(x), made.module()(x)
    assert got.shape == program.module()(x).shape
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    return made


NETS = {
    "attention": (Attention, (5, 6)),
    "fused attention": (lambda: Attention(fused=True), (5, 6)),
    "lstm": (Recurrent, (6, 7)),
    "bidirectional gru": (lambda: Recurrent(nn.GRU, bidirectional=True), (6, 7)),
    "shuffled": (Shuffled, (3, 8, 8)),
    "tied": (Tied, (4,)),
    "encoder layer": (
        lambda: nn.Sequential(
            nn.Linear(6, 16), nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), nn.Linear(16, 2)
        ),
        (5, 6),
    ),
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("seed", range(3))
def test_a_cut_model_computes_what_the_original_does_with_the_removed_units_at_zero(name, seed):
    make, shape = NETS[name]
    program = exported(make(), *shape)
    channels = trace_channels(program)
    assert any(group.exact for group in channels.groups)
    assert_same(program, some(channels, seed), channels, torch.randn(3, *shape))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_random_graphs_keep_their_outputs_shape_and_lose_only_what_was_removed(seed):
    torch.manual_seed(seed)
    program = exported(Random(seed), 3, 6, 6)
    channels = trace_channels(program)
    removed = some(channels, seed, whole=seed % 2 == 0)
    made = assert_same(program, removed, channels, torch.randn(2, 3, 6, 6))
    assert sum(p.numel() for p in made.parameters()) <= sum(p.numel() for p in program.parameters())


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_counted_multiplications_of_a_plan_are_those_of_the_cut_model(seed):
    program = exported(Random(seed), 3, 6, 6)
    channels = trace_channels(program)
    removed = some(channels, seed, whole=seed % 2 == 0)
    made = smaller(program, channels, removed).module()
    with FlopCounterMode(display=False) as counter:
        made(torch.zeros(1, 3, 6, 6))
    assert channels.macs(removed) == pytest.approx(counter.get_total_flops() / 2, rel=1e-9)


def test_layers_that_share_channels_are_one_group_and_named_after_the_first():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.inner, self.outer = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 8, 1)
            self.head = nn.Conv2d(8, 2, 1)

        def forward(self, x):
            x = self.stem(x)
            return self.head(x + self.outer(self.inner(x).relu()))

    channels = trace_channels(exported(Residual(), 3, 6, 6))
    assert [(group.name, group.units) for group in channels.groups] == [("stem +1", 8), ("inner", 6)]
    assert channels.groups[0].layers == ("stem", "outer")
    assert [len(group.branches) for group in channels.groups] == [0, 1]
    assert {pinned.name: pinned.reason for pinned in channels.pinned} == {"head": "it is an output of the model"}


def test_what_a_branch_that_goes_takes_with_it_is_known():
    class Bottleneck(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.head = nn.Linear(3, 8), nn.Linear(8, 2)
            self.first, self.second, self.third = nn.Linear(8, 6), nn.Linear(6, 4), nn.Linear(4, 8)

        def forward(self, x):
            x = self.stem(x)
            return self.head(x + self.third(self.second(self.first(x).relu()).relu()))

    channels = trace_channels(exported(Bottleneck(), 3))
    assert channels.swept({"second": range(4)}) == {"first", "second"}
    assert channels.swept({"second": range(3), "first": range(6)}) == frozenset()
    assert channels.swept({}) == frozenset()


def test_a_branch_whose_inside_is_read_elsewhere_does_not_go_as_a_whole():
    class Leaky(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.inner, self.outer = nn.Linear(3, 8), nn.Linear(8, 6), nn.Linear(6, 8)
            self.head = nn.Linear(14, 2)

        def forward(self, x):
            x = self.stem(x)
            inner = self.inner(x).relu()
            return self.head(torch.cat([x + self.outer(inner), inner], 1))

    assert all(not group.branches for group in trace_channels(exported(Leaky(), 3)).groups)


def test_heads_are_units_of_an_attention_and_the_batch_may_be_fixed():
    program = exported(Attention(), 5, 6, dynamic=False)
    channels = trace_channels(program)
    heads = channels.group("qkv")
    assert (heads.units, heads.width) == (4, 16)
    assert channels.group("stem +2").exact is False
    assert_same(program, {"qkv": [1, 3], "up": [0, 5]}, channels, torch.randn(2, 5, 6), batch=2)


def test_a_norm_over_pruned_channels_normalizes_what_is_left():
    program = exported(Attention(), 5, 6)
    channels = trace_channels(program)
    removed = some(channels, 0, exact=False)
    made = smaller(program, channels, removed)
    assert made.module()(torch.randn(2, 5, 6)).shape == (2, 5, 3)


def test_what_cannot_be_pruned_is_listed_with_its_reason():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 6)

        def forward(self, x):
            return self.c(torch.softmax(self.a(x), -1)) + torch.cumprod(self.b(x), -1).amax(-1, keepdim=True)

    reasons = {pinned.name: pinned.reason for pinned in trace_channels(exported(Odd(), 4)).pinned}
    assert reasons["a"] == "softmax goes along it"
    assert reasons["b"].startswith("it runs into cumprod, for which there is no rule")
    assert reasons["c"] == "it is an output of the model"


def test_a_programs_own_weights_stay_as_they_were():
    program = exported(Shuffled(), 3, 8, 8)
    before = {name: value.clone() for name, value in program.state_dict.items()}
    channels = trace_channels(program)
    smaller(program, channels, some(channels, 1))
    assert all(torch.equal(before[name], value) for name, value in program.state_dict.items())
