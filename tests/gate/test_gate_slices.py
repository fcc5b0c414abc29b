"""The worst of many slices: FAIL needs Holm, PASS needs every slice."""

from __future__ import annotations

import numpy as np
import pytest
from gate_bundles import right_and_wrong
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from edgeopt.bundle.document import SliceRow
from edgeopt.core.measurement import Interval, Measurement, not_measured
from edgeopt.core.slices import SliceColumn
from edgeopt.gate.limits import judge
from edgeopt.gate.slices import judge_slices
from edgeopt.measure.metrics import METRICS
from edgeopt.measure.paired import slice_rows
from edgeopt.measure.statistics import exceeds_p, paired_difference
from edgeopt.measure.statistics.shares import score_statistic
from edgeopt.recipes.settings import Limits


def a_slice(value, drop=None, n=100):
    missing = not_measured("drop_pp", "pp", "too few samples")
    figure = missing
    if drop is not None:
        middle, low, high = drop
        interval = Interval(low=low, high=high, method="test")
        figure = Measurement(name="drop_pp", value=middle, unit="pp", interval=interval, n=n)
    p_adjusted = not_measured("p_adjusted", "1", "of no drop: the gate asks whether the limit is exceeded")
    accuracy = Measurement(name="accuracy_top1_pct", value=90.0, unit="%")
    return SliceRow(column="class", value=value, samples=n, figure=accuracy, drop=figure, p_adjusted=p_adjusted)


INSIDE, ASTRIDE, OUTSIDE, JUST_OUTSIDE = (0, -1, 1), (3, 1, 7), (9, 6, 12), (9, 5.2, 12.8)


@pytest.mark.parametrize(
    ("slices", "status", "where"),
    [
        ([a_slice("a", INSIDE), a_slice("b", INSIDE)], "PASS", "class a"),
        ([a_slice("a", INSIDE), a_slice("b", ASTRIDE)], "INCONCLUSIVE", "class b"),
        ([a_slice("a", ASTRIDE), a_slice("b", OUTSIDE)], "FAIL", "class b"),
        ([a_slice("b", JUST_OUTSIDE)], "FAIL", "class b"),
        ([a_slice("a", INSIDE), a_slice("b", JUST_OUTSIDE)], "INCONCLUSIVE", "class b"),
        ([a_slice("a", INSIDE), a_slice("b", n=3)], "PASS", "class a"),
        ([a_slice("a", (6, 6, 6))], "FAIL", "class a"),
        ([a_slice("a", (5, 5, 5))], "PASS", "class a"),
    ],
)
def test_the_verdict_over_slices(slices, status, where):
    figure, found, message = judge_slices(slices, 5.0)
    assert (found, figure.conditions["slice"]) == (status, where)
    assert ("too small" in message) == any(row.drop.value is None for row in slices)


@pytest.mark.parametrize("slices", [[], [a_slice("a", n=3)]])
def test_without_a_slice_to_judge_nothing_can_be_told(slices):
    figure, status, _ = judge_slices(slices, 5.0)
    assert (figure.value, status) == (None, "INCONCLUSIVE")


def test_chance_among_many_slices_is_no_fail():
    """A drop that lies outside in one of 30 slices, with p = 0.005 on its own."""
    alone = judge_slices([a_slice("x", OUTSIDE)], 5.0)
    among = judge_slices([a_slice("x", OUTSIDE), *(a_slice(str(i), INSIDE) for i in range(29))], 5.0)
    assert (alone[1], among[1]) == ("FAIL", "INCONCLUSIVE")
    assert "Holm" in among[2]


def test_a_recipe_may_limit_the_worst_slice(make):
    candidate = make("int8", slices=(a_slice("a", OUTSIDE),))
    verdict = judge(candidate, Limits(worst_slice_drop_pp=5.0))
    assert verdict.status == "FAIL"
    assert "in class a, at most 5 pp" in verdict.summary
    assert judge(make("fp32"), Limits(worst_slice_drop_pp=5.0)).status == "PASS"


def both(metric, theirs, mine):
    kept = theirs.candidate[metric.name], mine.candidate[metric.name]
    return slice_rows(metric, *kept, mine.slices, seed=0)


def test_p_values_of_slices_are_adjusted_together():
    metric = METRICS["accuracy_top1_pct"]()
    mine, theirs = right_and_wrong(300, range(0, 60, 3)), right_and_wrong(300)
    rows = both(metric, theirs, mine)
    assert [(row.value, row.samples) for row in rows] == [("class 0", 100), ("class 1", 100), ("class 2", 100)]
    assert rows[0].drop.value == pytest.approx(20)
    assert rows[0].p_adjusted.value == pytest.approx(3 * rows[0].drop.conditions["p"])
    assert [row.p_adjusted.value for row in rows[1:]] == [1.0, 1.0]


def test_among_equal_models_slices_seldom_fail():
    """200 pairs of equally good models, 20 slices each, limit 0: at most 5 % may FAIL (Holm), with room for chance."""
    rng = np.random.default_rng(0)
    failed = 0
    metric = METRICS["accuracy_top1_pct"]()
    for _ in range(200):
        sides = [right_and_wrong(800, np.flatnonzero(rng.random(800) < 0.1), classes=20) for _ in range(2)]
        _, status, _ = judge_slices(both(metric, *sides), 0.0)
        failed += status == "FAIL"
    assert failed <= 18  # binomial(200, 0.05) is above 18 once in 100 times, and exact tests on 40 samples are milder


def test_the_p_of_a_limit_is_near_the_exact_one_far_out():
    """34 of 200 lost, where 10 % may be: the binomial's own tail; the score statistic alone says a third of it."""
    exact = stats.binom.sf(33, 200, 0.1)
    assert exact / 1.5 < exceeds_p(34, 0, 200, 0.1) < exact * 1.5
    assert stats.norm.sf(float(score_statistic(np.array(34.0), np.array(0.0), 200, 0.1))) < exact / 2


def test_slices_that_sit_at_the_limit_seldom_fail():
    """Each of 20 slices has lost 10 points, and 10 are allowed: of no drop p is small everywhere, and nothing is missed."""
    rng = np.random.default_rng(0)
    failed = 0
    metric = METRICS["accuracy_top1_pct"]()
    for _ in range(200):
        worse = right_and_wrong(4000, np.flatnonzero(rng.random(4000) < 0.1), classes=20)
        _, status, _ = judge_slices(both(metric, right_and_wrong(4000, classes=20), worse), 10.0)
        failed += status == "FAIL"
    assert failed <= 11  # binomial(200, 0.025) is above 11 once in 100 times


@given(st.integers(0, 40), st.integers(0, 40), st.floats(-0.5, 0.5))
def test_a_limit_that_is_exceeded_lies_below_the_interval(lost, won, limit):
    interval = paired_difference(lost, won, 100)
    if exceeds_p(lost, won, 100, limit) < 0.025:
        assert limit <= interval.low + 1e-6


def test_an_f1_that_drops_in_a_slice_fails_the_gate():
    metric = METRICS["f1_macro_pct"]()
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 600)
    predicted = np.where(rng.random(600) < 0.3, (labels + 1) % 3, labels)
    sides = [metric.samples(np.eye(3, dtype=np.float32)[side], labels) for side in (labels, predicted)]
    rows = slice_rows(
        metric, *sides, {"half": SliceColumn(codes=(np.arange(600) % 2).astype(np.int32), values=("a", "b"))}
    )
    assert {judge_slices(rows, limit)[1] for limit in (1.0, 20.0)} == {"FAIL"}
    assert judge_slices(rows, 45.0)[1] == "PASS"
