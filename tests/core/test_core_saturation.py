"""Sums of u8×s8 products in 16 bits: bounds, witnesses and repairs, held against arithmetic that really saturates."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeopt.core.saturation import (
    INT16_MAX,
    INT16_MIN,
    from_kernel_rows,
    kernel_rows,
    overflows,
    pair_sums,
    repair,
    witnesses,
)

ROWS = hnp.arrays(np.int8, st.tuples(st.integers(1, 6), st.integers(1, 13)))
HIGH = st.integers(0, 255)
PAIRING = st.sampled_from(["neighbours", "any"])


def saturating(x, rows):
    """[N, channels]: products added in pairs with signed saturation, then in full; x: [N, K] bytes."""
    k = rows.shape[1] + rows.shape[1] % 2
    left = np.zeros((len(x), k), np.int64)
    right = np.zeros((len(rows), k), np.int64)
    left[:, : x.shape[1]], right[:, : rows.shape[1]] = x, rows
    products = left[:, None, :] * right[None]
    return (products[..., 0::2] + products[..., 1::2]).clip(INT16_MIN, INT16_MAX).sum(-1)


def exact(x, rows):
    return x.astype(np.int64) @ rows.astype(np.int64).T


def overflowed(x, rows):
    """Which channels some row of ``x`` makes wrong: bool [channels]."""
    return (saturating(x, rows) != exact(x, rows)).any(0)


def adversaries(rows, high, count, random):
    """Inputs that try: bytes at random, only extremes, and the worst of each channel (high where one sign's weights are)."""
    k = rows.shape[1]
    extremes = random.integers(0, 2, (count // 2, k)) * high
    noise = random.integers(0, high + 1, (count - len(extremes), k))
    worst = np.concatenate([(rows > 0) * high, (rows < 0) * high])
    return np.concatenate([extremes, noise, worst])


@given(rows=ROWS, high=HIGH, seed=st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_a_channel_overflows_exactly_where_the_verdict_says_so(rows, high, seed):
    x = adversaries(rows, high, 40, np.random.default_rng(seed))
    np.testing.assert_array_equal(overflowed(x, rows), overflows(pair_sums(rows), high))


@given(rows=ROWS, high=HIGH)
@settings(max_examples=100, deadline=None)
def test_every_channel_that_can_overflow_has_a_witness_that_does(rows, high):
    found = witnesses(rows, high)
    assert [one.channel for one in found] == np.flatnonzero(overflows(pair_sums(rows), high)).tolist()
    for one in found:
        x = np.zeros((1, rows.shape[1]), np.int64)
        x[0, list(one.positions)] = one.value
        assert exact(x, rows)[0, one.channel] == one.total == sum(one.weights) * one.value
        assert saturating(x, rows)[0, one.channel] in (INT16_MIN, INT16_MAX) != one.total


@pytest.mark.long
def test_a_million_adversarial_inputs_find_no_overflow_in_what_is_called_safe():
    random, tried, safe = np.random.default_rng(0), 0, 0
    for k in (2, 9, 16, 27):
        for high in (255, 254, 200, 129):
            limit = min(127, 2 * INT16_MAX // high)
            rows = np.rint(random.normal(0, limit / 3, (24, k)).clip(-127, 127)).astype(np.int8)
            rows[:8] = repair(rows[:8], high)[0]  # at the limit
            is_safe = ~overflows(pair_sums(rows), high)
            x = adversaries(rows, high, 62_500, random)
            for part in np.array_split(x, 25):
                assert not overflowed(part, rows[is_safe]).any()
            tried, safe = tried + len(x), safe + int(is_safe.sum())
    assert tried >= 1_000_000
    assert safe >= 16 * 8


@given(rows=ROWS, high=HIGH)
@settings(max_examples=100, deadline=None)
def test_any_pairing_is_never_more_hopeful_than_neighbours(rows, high):
    near, wide = (overflows(pair_sums(rows, pairing), high) for pairing in ("neighbours", "any"))
    assert not (near & ~wide).any()
    shuffled = rows[:, np.random.default_rng(0).permutation(rows.shape[1])]
    assert not (overflows(pair_sums(shuffled), high) & ~wide).any()


@given(rows=ROWS.map(lambda r: r.clip(-64, 63)))
def test_seven_bits_never_overflow(rows):
    assert not overflows(pair_sums(rows, "any"), 255).any()


@given(rows=ROWS, high=HIGH, pairing=PAIRING)
@settings(max_examples=150, deadline=None)
def test_a_repaired_channel_cannot_overflow_and_others_are_as_they_were(rows, high, pairing):
    bad = overflows(pair_sums(rows, pairing), high)
    new, factors = repair(rows, high, pairing)
    assert not overflows(pair_sums(new, pairing), high).any()
    np.testing.assert_array_equal(new[~bad], rows[~bad])
    assert (factors[~bad] == 1).all()
    assert (factors >= 1).all()
    assert (new.astype(int) * rows >= 0).all()  # no weight changes its sign


def test_a_pair_that_passes_the_limit_by_one_costs_one_step_of_one_weight():
    rows = np.random.default_rng(0).integers(-60, 60, (1, 100)).astype(np.int8)
    rows[0, :4] = (65, 64, -65, -64)
    new, factors = repair(rows, 255)
    assert factors[0] == 1
    assert np.abs(new.astype(int) - rows).sum() == 2
    assert (new[0, :2].sum(), new[0, 2:4].sum()) == (128, -128)


@pytest.mark.parametrize("spread", ["normal", "laplace"])
def test_a_repair_costs_less_than_one_bit_of_every_weight(spread):
    floats = getattr(np.random.default_rng(1), spread)(size=(200, 144))
    step = np.abs(floats).max(1, keepdims=True) / 127
    rows = np.rint(floats / step).astype(np.int8)
    new, factors = repair(rows, 255)
    bad = factors > 1
    assert bad.mean() > 0.5
    seven = np.rint(floats / (2 * step)).clip(-63, 63) * 2 * step
    errors = [((w - floats)[bad] ** 2).sum(1) for w in (new * factors[:, None] * step, seven)]
    assert errors[0].sum() < 0.75 * errors[1].sum()


@pytest.mark.parametrize(("shape", "layout"), [((4, 3, 2, 5), "conv"), ((6, 2, 3), "conv"), ((7, 5), "columns"), ((5, 7), "rows"), ((2, 7, 5), "columns")])  # fmt: skip
def test_rows_go_back_into_the_weight_that_they_came_from(shape, layout):
    weight = np.random.default_rng(2).integers(-128, 128, shape).astype(np.int8)
    rows = kernel_rows(weight, layout)
    np.testing.assert_array_equal(from_kernel_rows(rows, shape, layout), weight)


def test_a_convolution_is_the_product_of_its_rows_with_channels_last_windows():
    random = np.random.default_rng(3)
    x, weight = random.integers(0, 256, (5, 6, 7)), random.integers(-128, 128, (4, 5, 3, 2)).astype(np.int8)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 2), axis=(1, 2))  # [C, H, W, 3, 2]
    expected = np.einsum("chwij,ocij->hwo", windows, weight.astype(int))
    last = windows.transpose(1, 2, 3, 4, 0).reshape(4 * 6, -1)
    np.testing.assert_array_equal(exact(last, kernel_rows(weight, "conv")).reshape(4, 6, 4), expected)
