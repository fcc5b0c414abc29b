from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from edgeopt.measure import statistics


def test_bca_agrees_with_scipys_where_every_sample_is_left_out_in_turn():
    rng = np.random.default_rng(0)
    values = rng.exponential(size=150)  # skewed: bias and acceleration matter

    def mean(weights):
        return float(np.average(values, weights=weights))

    found = statistics.bootstrap(mean, len(values), seed=0, resamples=20_000)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1))
    plain = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1))
    wanted = theirs.confidence_interval
    assert (found.low, found.high) == (pytest.approx(wanted.low, abs=6e-3), pytest.approx(wanted.high, abs=6e-3))
    assert abs(plain.confidence_interval.high - wanted.high) > 6e-3, "the test could not tell BCa from the percentiles"


def test_bca_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(300):
        values = rng.exponential(size=80)
        found = statistics.bootstrap(lambda w, v=values: float(np.average(v, weights=w)), 80, seed=seed, resamples=600)
        hits += found.low <= 1.0 <= found.high
    assert hits / 300 == pytest.approx(0.94, abs=0.035)


def test_the_difference_of_paired_figures_is_narrower_than_that_of_strangers():
    rng = np.random.default_rng(0)
    reference = rng.normal(size=400)
    candidate = reference + 0.1 * rng.normal(size=400)

    def drop(weights):
        return float(np.average(reference, weights=weights) - np.average(candidate, weights=weights))

    found = statistics.bootstrap(drop, 400, seed=0)
    assert found.high - found.low < 0.03  # two independent means: 0.28


def test_what_every_resample_gives_alike_has_no_width():
    found = statistics.bootstrap(lambda _: 0.0, 50, seed=0)
    assert (found.low, found.high) == (0.0, 0.0)


def test_too_few_samples_have_no_interval():
    assert statistics.bootstrap(lambda w: float(w.mean()), statistics.FEWEST_SAMPLES - 1, seed=0) is None


def test_a_figure_that_most_resamples_do_not_define_has_no_interval():
    positive = np.zeros(40)
    positive[0] = 1  # a third of the resamples lack the only positive sample

    def rate(weights):
        return float(weights.sum()) if (weights * positive).sum() else float("nan")

    assert statistics.bootstrap(rate, 40, seed=0) is None


def test_one_seed_gives_one_interval():
    values = np.random.default_rng(0).normal(size=60)

    def mean(weights):
        return float(np.average(values, weights=weights))

    first, second = (statistics.bootstrap(mean, 60, seed=3) for _ in range(2))
    assert first == second
    assert first != statistics.bootstrap(mean, 60, seed=4)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
@settings(max_examples=30)
def test_holm_is_statsmodels(p_values):
    assert statistics.holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1], abs=1e-12)


@pytest.mark.parametrize("wrong", [[-0.1, 0.5], [1.5]])
def test_holm_refuses_what_is_no_probability(wrong):
    with pytest.raises(ValueError, match="between 0 and 1"):
        statistics.holm(wrong)


@given(st.integers(0, 60), st.integers(0, 60))
@settings(max_examples=50)
def test_mcnemar_and_wilson_are_statsmodels(b, c):
    table = [[10, b], [c, 10]]
    assert statistics.mcnemar_p(b, c) == pytest.approx(float(mcnemar(table, exact=True).pvalue) if b + c else 1.0)
    low, high = proportion_confint(b, b + c + 1, method="wilson")
    found = statistics.proportion(b, b + c + 1)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-9), pytest.approx(high, abs=1e-9))
