from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeopt.core.errors import RecipeError
from edgeopt.gate.limits import judge
from edgeopt.recipes.schema import Limits


@pytest.mark.parametrize(
    ("drop", "status"),
    [
        ((0.2, -0.1, 0.9), "PASS"),
        ((0.2, -0.1, 1.0), "PASS"),  # on the limit is within it
        ((0.2, -0.9, 1.1), "INCONCLUSIVE"),
        ((1.5, 0.9, 2.1), "INCONCLUSIVE"),
        ((1.5, 1.0, 2.1), "INCONCLUSIVE"),
        ((3.0, 1.1, 5.0), "FAIL"),
        ("the data has no labels", "INCONCLUSIVE"),
    ],
)
def test_a_limit_is_judged_by_the_interval(make, drop, status):
    verdict = judge(make("int8", drop_pp=drop), Limits(drop_pp=1.0))
    assert verdict.status == verdict.limits[0].status == status


@pytest.mark.parametrize(
    ("agreement", "status"),
    [((99.5, 99.1, 99.8), "PASS"), ((99.5, 98.9, 99.8), "INCONCLUSIVE"), ((97.0, 96.0, 98.0), "FAIL")],
)
def test_agreement_is_a_smallest_share(make, agreement, status):
    verdict = judge(make("int8", agreement_pct=agreement), Limits(agreement=0.99))
    (row,) = verdict.limits
    assert (row.status, row.name, row.limit, row.figure.unit) == (status, "agreement_pct", 99.0, "%")
    assert "at least 99 %" in verdict.summary


@pytest.mark.parametrize("share", [99, -0.1])
def test_an_agreement_that_is_no_share_is_refused(make, share):
    with pytest.raises(RecipeError, match=r"share between 0 and 1.*Write 0\.99"):
        judge(make("int8"), Limits(agreement=share))


def test_figures_without_an_interval_are_exact(make):
    assert judge(make("int8", size_mib=2.0), Limits(size_mib=2.0)).status == "PASS"
    assert judge(make("int8", size_mib=2.01), Limits(size_mib=2.0)).status == "FAIL"
    assert judge(make("int8", peak_memory_mib=9.0), Limits(peak_memory_mib=2.0)).status == "FAIL"


def test_no_limits_pass_and_say_so(make):
    verdict = judge(make("int8"), Limits())
    assert (verdict.status, verdict.summary, verdict.limits) == ("PASS", "No limits set.", ())


def test_the_worst_limit_is_the_verdict_and_its_message_the_summary(make):
    candidate = make("int8", drop_pp=(0.5, 0.1, 2.0), latency_ratio=(0.5, 0.4, 0.6), size_mib=5.0)
    limits = Limits(drop_pp=1.0, latency_ratio=0.9)
    assert judge(candidate, limits).status == "INCONCLUSIVE"
    verdict = judge(candidate, limits.model_copy(update={"size_mib": 4.0}))
    assert verdict.status == "FAIL"
    assert verdict.summary == "size_mib: 5 MiB, at most 4 MiB: missed."
    assert [row.name for row in verdict.limits] == ["drop_pp", "latency_ratio", "size_mib"]


def test_all_limits_held_are_counted(make):
    candidate = make("int8", drop_pp=(0.0, -0.1, 0.1), size_mib=1.0)
    assert judge(candidate, Limits(drop_pp=1.0, size_mib=2.0)).summary == "All 2 limits hold."


def test_a_figure_that_nobody_measured_is_inconclusive_with_the_reason(make):
    candidate = make("int8", status="not_built", reason="TensorRT builds on the device only")
    verdict = judge(candidate, Limits(latency_ratio=1.0))
    assert verdict.status == "INCONCLUSIVE"
    assert verdict.limits[0].figure.value is None
    assert "TensorRT builds on the device only" in verdict.summary
    assert "not measured" in judge(make("int8", status="not_measured"), Limits(size_mib=1.0)).summary


def test_fp32_holds_whatever_compares_with_fp32(make):
    limits = Limits(drop_pp=0.1, latency_ratio=0.5, agreement=1.0)
    assert judge(make("fp32", drop_pp=(0.0, -0.4, 0.4)), limits).status == "PASS"
    assert judge(make("fp32", size_mib=9.0), Limits(size_mib=1.0)).status == "FAIL"


def test_an_inconclusive_drop_says_how_many_more_samples_would_settle_it(make):
    candidate = make("int8", drop_pp=(0.5, -0.5, 1.5, 400))
    # The half-width of 1 pp must shrink to the 0.5 pp between figure and limit: four times the samples.
    assert "About 1200 more samples like these 400" in judge(candidate, Limits(drop_pp=1.0)).summary


def test_of_a_lopsided_interval_the_side_across_the_limit_counts(make):
    candidate = make("int8", drop_pp=(1.2, 0.2, 5.0, 400))
    # Down to the limit it is 0.2 pp, and the lower half-width is 1 pp: 25 times the samples.
    assert "About 9600 more samples like these 400" in judge(candidate, Limits(drop_pp=1.0)).summary


def test_a_figure_on_its_limit_cannot_be_settled(make):
    candidate = make("int8", drop_pp=(1.0, 0.0, 2.0))
    assert "no affordable number" in judge(candidate, Limits(drop_pp=1.0)).summary


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # the fixture is a pure function
@given(
    value=st.floats(-5, 5), below=st.floats(0, 3), above=st.floats(0, 3), limit=st.floats(-5, 5), looser=st.floats(0, 3)
)
def test_a_looser_limit_is_never_judged_worse(make, value, below, above, limit, looser):
    order = ["FAIL", "INCONCLUSIVE", "PASS"]
    one = make("int8", drop_pp=(value, value - below, value + above))
    tight, loose = (judge(one, Limits(drop_pp=x)).status for x in (limit, limit + looser))
    assert order.index(loose) >= order.index(tight)
    if tight == "INCONCLUSIVE":
        assert value - below <= limit < value + above
