"""Which rung meets the limits: an interval that reaches past a limit is no reason to climb on, a figure that does is."""

import pytest

from edgeopt.gate.rungs import judge_rung
from edgeopt.recipes.schema import Limits

LIMITS = Limits(drop_pp=1.0, latency_ratio=1.0)
WELL = {"drop_pp": (0.1, -0.2, 0.4), "latency_ratio": (0.5, 0.48, 0.52), "latency_p50_ms": (1.0, 0.98, 1.02)}


def outcome(*candidates, limits=LIMITS, objective="latency"):
    return judge_rung(candidates, limits, objective)


def test_a_candidate_inside_all_limits_meets_them_without_a_word(make):
    found = outcome(make("a-int8", **WELL))
    assert (found.status, found.message, found.candidate.id) == ("met", "", "a-int8")


def test_one_candidate_that_meets_the_limits_is_enough_and_speaks_for_the_rung(make):
    fast = make("a-int8", **WELL | {"drop_pp": (3.0, 2.5, 3.5), "latency_p50_ms": (0.5, 0.49, 0.51)})
    found = outcome(fast, make("b-int8", **WELL))
    assert (found.status, found.candidate.id) == ("met", "b-int8")


def test_a_test_split_too_small_to_tell_counts_by_the_figure_and_says_so(make):
    found = outcome(make("a-int8", **WELL | {"drop_pp": (0.3, -0.6, 1.2, 360)}))
    assert found.status == "met"
    assert found.message == "The drop is inside, but the test split of 360 samples cannot tell for sure."


def test_a_figure_outside_misses_even_where_the_interval_reaches_in(make):
    found = outcome(make("a-int8", **WELL | {"drop_pp": (1.1, 0.2, 2.0)}))
    assert (found.status, found.message) == ("missed", "drop_pp 1.1 (limit 1).")
    assert not found.only_speed_misses


def test_what_was_not_measured_misses_nothing_and_is_said(make):
    found = outcome(make("a-int8", drop_pp=(0.1, 0.0, 0.2), latency_ratio="no Pi is here"))
    assert (found.status, found.message) == ("met", "The latency was not measured.")


def test_accurate_and_slow_is_told_from_inaccurate(make):
    slow = make("a-int8", **WELL | {"latency_ratio": (1.4, 1.3, 1.5)})
    assert outcome(slow).only_speed_misses
    wrong = make("b-int8", **WELL | {"drop_pp": (4.0, 3.0, 5.0)})
    found = outcome(slow, wrong)
    assert (found.status, found.only_speed_misses) == ("missed", False)


def test_agreement_and_size_are_held_as_they_are_written(make):
    limits = Limits(agreement=0.99, size_mib=1.0)
    figures = {"agreement_pct": (99.5, 99.2, 99.8), "size_mib": 0.5, "latency_p50_ms": (1.0, 0.9, 1.1)}
    assert outcome(make("a-int8", **figures), limits=limits).status == "met"
    low = outcome(make("a-int8", **figures | {"agreement_pct": (98.0, 97.0, 98.5)}), limits=limits)
    assert low.message == "agreement_pct 98 (limit 99)."
    large = outcome(make("a-int8", **figures | {"size_mib": 2.0}), limits=limits)
    assert (large.message, large.only_speed_misses) == ("size_mib 2 (limit 1).", True)


def test_a_rung_whose_candidates_all_failed_has_no_one_to_speak_for_it(make):
    found = outcome(make("a-int8", status="failed", reason="it does not run."))
    assert (found.status, found.message, found.candidate) == ("failed", "a-int8: it does not run.", None)


@pytest.mark.parametrize("objective", ["latency", "size", "accuracy"])
def test_every_objective_finds_a_speaker(make, objective):
    figures = WELL | {"size_mib": 1.0, "accuracy_top1_pct": 98.0}
    assert outcome(make("a-int8", **figures), objective=objective).candidate.id == "a-int8"
