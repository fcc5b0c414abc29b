from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from edgeopt.measure import statistics

Z = float(stats.norm.ppf(0.975))


@st.composite
def discordant(draw):
    n = draw(st.integers(1, 400))
    b = draw(st.integers(0, n))
    return b, draw(st.integers(0, n - b)), n


@pytest.mark.parametrize(
    ("b", "c", "n", "level", "low", "high", "digits"),
    [
        # Fagerland, Lydersen and Laake, "Recommended tests and confidence intervals for paired binomial
        # proportions", 2014: airway hyper-responsiveness (Bentur 2009), complete response (Cavo 2012).
        (1, 7, 21, 0.95, -0.517, -0.026, 3),
        (6, 16, 161, 0.95, -0.1240, -0.0054, 4),
        # The R package PropCIs, scoreci.mp(25, 28, 618): its difference is second minus first.
        (28, 25, 618, 0.90, -0.0148, 0.0247, 4),
    ],
)
def test_tango_gives_the_published_intervals(b, c, n, level, low, high, digits):
    found = statistics.paired_difference(b, c, n, level)
    assert (round(found.low, digits), round(found.high, digits)) == (low, high)


def quartic(b, c, n):
    """Tango's limits as roots of a polynomial: Yang, Sun and Hardin, Statistics in Medicine 32 (2013) 1336-1342."""
    g, d = Z**2, b - c
    coefficients = [
        n**2 * (n / g + 1) ** 2,
        -n * d * (n / g + 1) * (4 * n / g + 1),
        2 * n * d**2 * (3 * n / g + 2) / g - n**2 * ((b + c) / g + 1),
        n * d * (2 * (b + c) / g + 1) - d**3 * (4 * n / g + 1) / g,
        d**2 * (d**2 / g - (b + c)) / g,
    ]
    roots = np.roots(coefficients)
    real = np.sort(roots[np.abs(roots.imag) < 1e-5].real)
    return real[0], real[-1]


@given(discordant())
def test_tango_agrees_with_the_closed_form(case):
    found = statistics.paired_difference(*case)
    low, high = quartic(*case)
    # The roots near ±1 are double: np.roots gives them to about the square root of its precision.
    assert found.low == pytest.approx(max(low, -1), abs=1e-5)
    assert found.high == pytest.approx(min(high, 1), abs=1e-5)


@given(discordant())
@settings(max_examples=30)
def test_at_tangos_limits_the_likelihood_maximized_by_brute_force_gives_the_normal_quantile(case):
    b, c, n = case
    found = statistics.paired_difference(*case)
    for limit, z in ((found.low, Z), (found.high, -Z)):
        if abs(limit) > 1 - 1e-6:
            continue

        def loss(q, limit=limit):
            terms = ((b, q + limit), (c, q), (n - b - c, 1 - 2 * q - limit))
            return -sum(count * math.log(max(p, 1e-300)) for count, p in terms if count)

        low, high = max(0.0, -limit), (1 - limit) / 2
        q = optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x
        variance = n * (2 * q + limit * (1 - limit))
        assert (b - c - n * limit) / math.sqrt(variance) == pytest.approx(z, abs=2e-3)


@given(discordant())
def test_tango_mirrors_when_the_two_change_places(case):
    b, c, n = case
    one, other = statistics.paired_difference(b, c, n), statistics.paired_difference(c, b, n)
    assert one.low == pytest.approx(-other.high, abs=1e-9)
    assert -1 <= one.low <= (b - c) / n <= one.high <= 1
    assert one.low < one.high


def test_tango_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    p = np.array([0.06, 0.03, 0.91])  # only first, only second, neither or both: a difference of 3 pp
    hits = 0
    for b, c, _ in rng.multinomial(300, p, size=1000):
        found = statistics.paired_difference(int(b), int(c), 300)
        hits += found.low <= 0.03 <= found.high
    assert hits / 1000 == pytest.approx(0.95, abs=0.02)  # three standard errors of 1,000 trials


@pytest.mark.parametrize(("b", "c", "n"), [(0, 0, 0), (-1, 0, 5), (3, 3, 5)])
def test_counts_that_do_not_fit_are_refused(b, c, n):
    with pytest.raises(ValueError, match="do not fit"):
        statistics.paired_difference(b, c, n)


@given(st.integers(1, 1000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_the_formula_of_the_paper(case):
    hits, n = case
    found = statistics.proportion(hits, n)
    p = hits / n
    centre = (p + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(p * (1 - p) / n + Z**2 / (4 * n**2))
    assert found.low == pytest.approx(max(0, centre - half), abs=1e-12)
    assert found.high == pytest.approx(min(1, centre + half), abs=1e-12)


def test_mcnemar_counts_coins():
    assert statistics.mcnemar_p(0, 0) == 1
    assert statistics.mcnemar_p(8, 0) == pytest.approx(2 / 2**8)
    assert statistics.mcnemar_p(6, 16) == pytest.approx(0.052479, abs=5e-7)  # Fagerland et al. 2014, Cavo 2012


def test_order_statistics_cover_the_median_as_often_as_they_say():
    rng = np.random.default_rng(1)
    found = [statistics.quantile(rng.lognormal(size=41), 0.5) for _ in range(500)]
    share = np.mean([interval.low <= 1 <= interval.high for interval in found])
    assert 0.93 <= share <= 1  # conservative by construction


def test_too_few_samples_have_no_interval_for_the_tail():
    assert statistics.quantile(np.arange(20.0), 0.99) is None
    assert statistics.quantile(np.arange(20.0), 0.5) is not None


def test_blocks_that_drift_have_wider_intervals_than_independent_samples():
    rng = np.random.default_rng(2)
    blocks = rng.normal(10, 1, size=(20, 1)) + rng.normal(0, 0.1, size=(20, 20))
    (by_block,) = statistics.block_quantiles(blocks, [0.5], seed=0)
    independent = statistics.quantile(blocks.ravel(), 0.5)
    assert by_block.high - by_block.low > 2 * (independent.high - independent.low)
    assert by_block.low <= np.median(blocks) <= by_block.high
    assert by_block.method == "bootstrap over 20 blocks"


def test_few_blocks_fall_back_on_order_statistics():
    (found,) = statistics.block_quantiles(np.arange(20.0).reshape(5, 4), [0.5], seed=0)
    assert found.method == "order statistics"


@pytest.mark.parametrize("rounds", [5, 30])
def test_a_ratio_is_not_disturbed_by_what_slows_both(rounds):
    rng = np.random.default_rng(3)
    weather = rng.uniform(1, 4, size=(rounds, 1))
    noise = rng.lognormal(0, 0.01, size=(2, rounds, 20))
    value, interval = statistics.ratio_of_medians(0.5 * weather * noise[0], weather * noise[1], seed=0)
    assert value == pytest.approx(0.5, rel=0.05)
    assert interval.low <= 0.5 * 1.02
    assert interval.high >= 0.5 * 0.98
    assert interval.high - interval.low < 0.06
    assert interval.low <= value <= interval.high


@pytest.mark.parametrize("rounds", [6, 20])
def test_a_ratios_interval_covers_the_truth_nearly_as_often_as_it_says(rounds):
    rng = np.random.default_rng(4)
    hits = 0
    for seed in range(150):
        one, other = rng.lognormal(0, 0.1, size=(2, rounds, 1)) * rng.lognormal(0, 0.1, size=(2, rounds, 10))
        interval = statistics.ratio_of_medians(0.8 * one, other, seed=seed)[1]
        hits += interval.low <= 0.8 <= interval.high
    assert hits / 150 > 0.88  # a percentile bootstrap of 20 rounds runs a little short of 95 %


@given(st.floats(0.1, 10))
@settings(max_examples=10)
def test_a_ratio_has_no_unit(factor):
    rng = np.random.default_rng(5)
    one, other = rng.lognormal(size=(2, 12, 5))
    value, interval = statistics.ratio_of_medians(one, other, seed=0)
    scaled, same = statistics.ratio_of_medians(one * factor, other * factor, seed=0)
    assert scaled == pytest.approx(value)
    assert (same.low, same.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_rounds_that_cannot_be_paired_are_refused():
    with pytest.raises(ValueError, match="cannot be paired"):
        statistics.ratio_of_medians(np.ones((1, 5)), np.ones((1, 5)), seed=0)


def test_a_rate_is_the_batch_over_the_mean_time():
    blocks = np.array([[0.1, 0.1], [0.2, 0.2], [0.15, 0.15]])
    found = statistics.rate(blocks, batch=3)
    half = stats.t.ppf(0.975, 2) * np.std([0.1, 0.2, 0.15], ddof=1) / math.sqrt(3)
    assert found.low == pytest.approx(3 / (0.15 + half))
    assert found.high == pytest.approx(3 / 0.1)  # no inference was faster than 0.1 s


def test_the_range_of_few_starts_says_how_sure_it_is():
    found = statistics.median_of_few([3.0, 1.0, 2.0])
    assert (found.low, found.high, found.level) == (1.0, 3.0, 0.75)
    with pytest.raises(ValueError, match="no range"):
        statistics.median_of_few([1.0])
