"""Ranges: the streaming histogram and the three ways to read it, against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeopt.compress.ranges import (
    CLIPPED,
    INT8_MAX,
    INT8_MIN,
    SCALE_FLOOR,
    Histogram,
    best_range,
    choose_range,
    grid_step,
    shifted_ends,
    symmetric_scale,
)

FLOATS = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)
ARRAYS = hnp.arrays(np.float32, st.integers(1, 300), elements=FLOATS)


def fill(*parts: np.ndarray) -> Histogram:
    histogram = Histogram()
    for part in parts:
        histogram.widen(float(part.min()), float(part.max()))
        histogram.add(part)
    return histogram


@given(ARRAYS, st.integers(0, 10**6))
def test_a_histogram_is_the_same_however_the_values_are_batched_and_ordered(values, seed):
    rng = np.random.default_rng(seed)
    cuts = np.sort(rng.integers(0, len(values), 3))
    shuffled = rng.permutation(values)
    parts = [part for part in np.split(shuffled, cuts) if part.size]

    whole, cut = fill(values), fill(*parts)

    assert (whole.width, whole.low, whole.high) == (cut.width, cut.low, cut.high)
    np.testing.assert_array_equal(whole.counts, cut.counts)


@given(ARRAYS)
def test_a_histogram_counts_every_value_in_the_bin_that_holds_it(values):
    histogram = fill(values)
    if histogram.width == 0.0:
        assert not values.any()
        assert histogram.total == values.size
        return
    expected, _ = np.histogram(values.astype(np.float64), histogram.edges())
    np.testing.assert_array_equal(histogram.counts, expected)


def test_a_histogram_grows_from_a_tiny_first_batch_without_losing_its_counts():
    histogram = fill(np.zeros(5, np.float32), np.full(3, 1e-6, np.float32), np.array([-1e4, 1e4], np.float32))
    assert histogram.total == 10
    assert (histogram.low, histogram.high) == (-1e4, 1e4)


@given(ARRAYS)
def test_minmax_is_the_exact_range(values):
    assert choose_range(fill(values), "minmax", 99.0) == (float(values.min()), float(values.max()))


@given(ARRAYS, st.floats(50.5, 100.0))
def test_a_percentile_range_keeps_at_least_its_share_and_cuts_no_more_than_a_bin_too_little(values, percentile):
    histogram = fill(values)
    low, high = choose_range(histogram, "percentile", percentile)
    exact = np.sort(values.astype(np.float64))
    cut = values.size * (100.0 - percentile) / 200.0
    index = min(int(np.floor(cut)), values.size - 1)
    assert values.min() <= low <= high <= values.max()
    assert np.mean((exact >= low) & (exact <= high)) >= percentile / 100 - 1e-9
    assert exact[index] - histogram.width <= low <= exact[index]
    assert exact[-1 - index] <= high <= exact[-1 - index] + histogram.width


def weighted_error(values: np.ndarray, largest: float, clipped: float) -> float:
    values, scale = values.astype(np.float64), symmetric_scale(-largest, largest)
    squares = (values - np.clip(np.rint(values / scale), INT8_MIN, INT8_MAX) * scale) ** 2
    return float((squares * np.where(np.abs(values) > largest, clipped, 1.0)).sum())


@settings(deadline=None, max_examples=50)
@given(
    st.integers(0, 10**6),
    st.sampled_from(["normal", "laplace", "lognormal", "uniform", "relu"]),
    st.sampled_from([1.0, CLIPPED, 100.0]),
)
def test_the_histogram_range_has_nearly_the_least_weighted_error_of_all_symmetric_ranges(seed, shape, clipped):
    rng = np.random.default_rng(seed)
    values = {
        "normal": lambda: rng.normal(size=20_000),
        "laplace": lambda: rng.laplace(size=20_000),
        "lognormal": lambda: rng.lognormal(sigma=1.5, size=20_000),
        "uniform": lambda: rng.uniform(-3, 3, size=20_000),
        "relu": lambda: np.maximum(rng.normal(size=20_000), 0),
    }[shape]().astype(np.float32)
    low, high = best_range(fill(values), clipped)
    largest = float(np.abs(values).max())
    exhaustive = min(weighted_error(values, largest * share, clipped) for share in np.linspace(0.02, 1, 400))
    assert weighted_error(values, max(-low, high), clipped) <= 1.01 * exhaustive
    assert weighted_error(values, max(-low, high), clipped) <= weighted_error(values, largest, clipped) * 1.003


def test_the_more_clipping_weighs_the_less_is_clipped():
    histogram = fill(np.random.default_rng(0).laplace(size=20_000).astype(np.float32))
    highs = [best_range(histogram, clipped)[1] for clipped in (1.0, 8.0, 1e3, 1e9)]
    assert highs == sorted(highs)
    assert highs[0] < 0.95 * highs[-1]


def test_a_one_sided_range_stays_one_sided():
    values = np.maximum(np.random.default_rng(0).normal(size=5000), 0).astype(np.float32)
    for observer in ("minmax", "percentile", "histogram"):
        low, high = choose_range(fill(values), observer, 99.0)
        assert low == 0.0
        assert 0.0 < high <= values.max()


@pytest.mark.parametrize("observer", ["minmax", "percentile", "histogram"])
@pytest.mark.parametrize("value", [0.0, 3.0, -2.5])
def test_a_constant_activation_has_a_range_and_a_positive_scale(observer, value):
    low, high = choose_range(fill(np.full(100, value, np.float32)), observer, 99.9)
    assert (low, high) == (value, value)
    scale = symmetric_scale(low, high)
    assert scale >= SCALE_FLOOR
    assert abs(np.rint(value / scale) * scale - value) <= scale / 2


@given(FLOATS, FLOATS, st.sampled_from([63, 127]))
def test_a_scale_is_a_float32_and_covers_its_range(a, b, levels):
    scale = symmetric_scale(min(a, b), max(a, b), levels)
    assert scale == float(np.float32(scale)) > 0
    assert max(abs(a), abs(b)) <= levels * scale * (1 + 2**-23)


@given(st.lists(FLOATS, min_size=1, max_size=200), st.floats(2**-10, 1e6, width=32))
def test_a_value_in_range_moves_by_half_a_step_at_most(values, largest):
    x = np.clip(np.array(values, np.float64), -largest, largest)
    scale = symmetric_scale(-largest, largest)
    restored = np.clip(np.rint(x / scale), INT8_MIN, INT8_MAX) * scale
    # The scale is rounded to float32: at the very border the grid may end 2⁻²⁴ of the range short.
    assert np.all(np.abs(x - restored) <= scale / 2 + largest * 2**-24)


@given(st.floats(-50, 0), st.floats(0, 50), st.floats(0.5, 2))
def test_a_step_covers_its_range_on_grids_of_any_ends_also_when_the_range_has_moved_since(low, high, moved):
    ends = shifted_ends(low, high)
    low = low * moved
    step = grid_step(low, high, ends)
    assert step == np.float32(step)
    for value in (low, high):
        point = np.clip(np.rint(value / step), *ends) * step
        assert abs(point - value) <= 0.501 * step
