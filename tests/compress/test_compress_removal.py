"""What a removal costs is what the model without these units answers; units that nothing reads cost nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from compress_nets import MLP, dataset, export, samples, seeded

from edgeopt.compress.removal import RemovalJudge, RemovalTrials, units_at
from edgeopt.core.errors import DataError


def judge_of(net, shape, **options):
    model = export(net, shape)
    trials = RemovalTrials(model, model.program)
    split = dataset(samples(64, shape)).splits["calibration"]
    chosen = {"learn_from": split, "importance": "l2", "samples": 64, "classification": True, "seed": 0, **options}
    return trials, RemovalJudge(trials, split, **chosen)


def test_the_model_as_it_is_is_equal_to_itself():
    _, judge = judge_of(seeded(MLP, (20,)), (20,))
    assert (judge.reference.divergence, judge.reference.agreement, judge.reference.n) == (0.0, 1.0, 64)


def test_units_of_no_weight_go_first_and_cost_nothing():
    net = seeded(MLP, (20,))
    with torch.no_grad():  # every second unit is dead
        net[0].weight[::2] = 0.0
        net[0].bias[::2] = 0.0
        net[2].weight[:, ::2] = 0.0
    trials, judge = judge_of(net, (20,))
    (first, *_) = trials.groups
    found = list(judge.removals(first, (0.25, 0.5, 0.75)))
    assert [(one.ratio, one.removed) for one in found] == [(0.25, 16), (0.5, 32), (0.75, 48)]
    assert [one.score.divergence for one in found[:2]] == pytest.approx([0.0, 0.0], abs=1e-12)
    assert found[2].score.divergence > 1e-4


def test_a_removal_is_the_net_built_without_these_units():
    """The oracle: the two linear layers cut by hand, and run by PyTorch."""
    net = seeded(MLP, (20,))
    trials, judge = judge_of(net, (20,), importance="l1")
    group = trials.groups[0]
    (found,) = judge.removals(group, (0.5,))
    weight = net[0].weight.abs().sum(1) + net[2].weight.abs().sum(0)
    kept = torch.argsort(weight, stable=True)[32:].sort().values
    x = torch.from_numpy(samples(64, (20,)))
    with torch.no_grad():
        hidden = torch.relu(x @ net[0].weight[kept].T + net[0].bias[kept])
        hidden = torch.relu(hidden @ net[2].weight[:, kept].T + net[2].bias)
        cut, whole = (torch.log_softmax(y.double(), -1) for y in (net[4](hidden), net(x)))
    assert found.score.divergence == pytest.approx(float((whole.exp() * (whole - cut)).sum(-1).mean()), rel=1e-4)


def test_ratios_that_come_to_the_same_units_are_run_once(monkeypatch):
    net = torch.nn.Sequential(torch.nn.Linear(5, 2), torch.nn.ReLU(), torch.nn.Linear(2, 3)).eval()
    trials, judge = judge_of(net, (5,))
    runs = []
    monkeypatch.setattr(judge._judge, "score", lambda model: runs.append(model) or judge.reference)
    assert [one.removed for one in judge.removals(trials.groups[0], (0.25, 0.5, 0.75))] == [1, 1, 1]
    assert len(runs) == 1


@pytest.mark.parametrize("units", range(1, 40))
def test_a_share_of_the_units_is_at_least_one_and_never_all(units):
    counts = [units_at(ratio, units) for ratio in (0.001, 0.25, 0.5, 0.75, 0.999)]
    assert counts == sorted(counts)
    assert all(1 <= count < units for count in counts) or (units == 1 and not any(counts))
    assert all(
        abs(count - ratio * units) <= 0.5 for ratio, count in zip((0.25, 0.5, 0.75), counts[1:4], strict=True)
    ) or (units < 4)


def test_a_model_that_answers_nan_is_refused():
    net = seeded(MLP, (20,))
    with torch.no_grad():
        net[4].bias[0] = np.nan
    with pytest.raises(DataError, match="NaN, infinite or all zero"):
        judge_of(net, (20,))
