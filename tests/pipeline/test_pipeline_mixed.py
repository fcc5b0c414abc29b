"""The search takes the fastest assignment that holds its budget when it is scored, and says so where none does."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from edgeopt.compress.groups import Group
from edgeopt.compress.score import Score
from edgeopt.core.errors import RecipeError
from edgeopt.core.measurement import Measurement, not_measured
from edgeopt.pipeline import mixed
from edgeopt.pipeline.group_latency import GroupTimes
from edgeopt.pipeline.mixed import Timing, _Search, resolve_mixed
from edgeopt.pipeline.sensitivity import Table
from edgeopt.recipes.load import load_recipe
from edgeopt.recipes.schema import Budget, Mixed, Quantize

HURTS = {"a": 0.001, "b": 0.4, "c": 0.002}


def score(divergence, *, drop_pp=0.0):
    return Score(
        divergence=divergence, sqnr_db=20.0, agreement=1 - drop_pp / 100, loss=1.0, accuracy=0.9 - drop_pp / 100, n=100
    )


def make_search(monkeypatch, budget, *, hurts=HURTS, margin=0.2):
    """Scores that add up; a drop of 10 pp for each unit of divergence."""
    groups = tuple(Group(name=name, layers=(name,), ops=("conv",), macs=100, weights=10) for name in hurts)
    table = Table(
        groups=groups,
        alone={name: {"int8": score(value)} for name, value in hurts.items()},
        without={},
        everything={"int8": score(sum(hurts.values()))},
        reference=score(0.0),
        key="k",
    )
    config = Mixed(precision="int8", observer="minmax", bias_correction=False, budget=budget, margin=margin)
    split = SimpleNamespace(name="tune")
    run = SimpleNamespace(context=SimpleNamespace(host="test machine"))
    plan = SimpleNamespace(target=SimpleNamespace(float_recipe="fp32"))
    trials = SimpleNamespace(run=run, plan=plan, config=config, split=split)

    def scored(self, chosen):
        total = sum(hurts[name] for name, p in chosen.items() if p != "float")
        return score(total, drop_pp=10 * total)

    monkeypatch.setattr(_Search, "_score", scored)
    return _Search(
        run=run, plan=plan, samples=None, config=config, trials=trials, table=table, timing=Timing(why="a test")
    )


def test_exactly_the_sensitive_group_is_left_in_float(monkeypatch):
    section, assignment = make_search(monkeypatch, Budget(drop_pp=0.5)).result()
    assert assignment == ("int8", "float", "int8")
    assert [row.chosen for row in section.groups] == ["int8", "float", "int8"]
    chosen = [row for row in section.front if row.chosen]
    assert [row.groups_float for row in chosen] == [("b",)]
    assert {"all int8", "all float"} <= {row.label for row in section.front}


def test_everything_stays_in_int8_where_that_holds(monkeypatch):
    _, assignment = make_search(monkeypatch, Budget(divergence=1.0)).result()
    assert assignment == ("int8", "int8", "int8")


def test_a_budget_that_only_all_float_meets_names_what_binds(monkeypatch):
    search = make_search(monkeypatch, Budget(drop_pp=0.001))
    with pytest.raises(RecipeError, match=r"most sensitive groups are b, c, a.*best drop 0\.01 pp"):
        search.result()


def times(ratio, count):
    """All int8 at ``ratio`` of FP32; each group in float changes it by ``count``."""
    one = Measurement(name="latency_ratio", value=ratio, unit="1")
    deltas = {name: not_measured("latency_delta", "1", "a test", counts=count) for name in HURTS}
    return Timing(runtimes=(GroupTimes(runtime="onnxruntime", p50_ms=1.0, ratio=one, deltas=deltas),))


def test_where_float_is_the_fastest_that_is_the_reason_and_not_some_layer(monkeypatch):
    search = make_search(monkeypatch, Budget(drop_pp=50))
    search.timing = times(1.5, -0.1)
    with pytest.raises(RecipeError, match=r"Float is the fastest on onnxruntime.*recipe 'fp32'") as refused:
        search.result()
    assert "sensitive" not in str(refused.value)


@pytest.mark.parametrize(("ratio", "reason"), [(1.2, "Float is the fastest"), (0.9, "even with every group in int8")])
def test_a_latency_budget_tells_slow_int8_from_one_that_is_not_fast_enough(monkeypatch, ratio, reason):
    search = make_search(monkeypatch, Budget(latency_ratio=0.5))
    search.timing = times(ratio, 0.1)
    one = Measurement(name="latency_ratio", value=ratio, unit="1")
    monkeypatch.setattr(_Search, "_timed", lambda _, points: [replace(point, ratio=one) for point in points])
    with pytest.raises(RecipeError, match=rf"{reason}.*best p50 ratio {ratio}"):
        search.result()


def test_the_margin_is_kept_in_hand(monkeypatch):
    tight = {"a": 0.045, "b": 0.4, "c": 0.0}
    assert make_search(monkeypatch, Budget(drop_pp=0.5), hurts=tight, margin=0.0).result()[1][0] == "int8"
    assert make_search(monkeypatch, Budget(drop_pp=0.5), hurts=tight).result()[1][0] == "float"


def test_a_latency_budget_is_refused_where_nothing_is_measured_on_the_target():
    recipe = load_recipe("int8-mixed", ["steps.mixed.budget.drop_pp=null", "steps.mixed.budget.latency_ratio=0.8"])
    plan = SimpleNamespace(recipe=recipe, measured_here=False, measured_reason="another architecture")
    with pytest.raises(RecipeError, match="not measured on the target"):
        resolve_mixed(None, plan, None)


def test_the_outcome_is_a_plain_quantize_step_that_can_be_repeated():
    step = load_recipe("int8-mixed").step(Mixed)
    groups = [Group(name="b +1", layers=("b.0", "odd[1]"), ops=("conv",), macs=1, weights=1)]
    resolved = step.resolved(mixed._assign(groups, {"b +1": "float"}, step))
    assert type(resolved) is Quantize
    assert resolved.assign == {"b.0": "float", "odd[[]1]": "float"}


@pytest.mark.parametrize("budget", [{}, {"drop_pp": 1, "latency_ratio": 1}])
def test_a_budget_is_exactly_one(budget):
    with pytest.raises(ValueError, match="exactly one"):
        Budget(**budget)
