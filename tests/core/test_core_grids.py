"""A zero point is taken where it makes the grid much finer, and covers what was seen."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeopt.core.grids import LEVELS, finer_grid, reach_of

LOWS, HIGHS = st.floats(-100, 0), st.floats(0, 100)


@settings(max_examples=300, deadline=None)
@given(low=LOWS, high=HIGHS, step=st.floats(1e-3, 2))
def test_a_grid_is_much_finer_or_none_and_has_zero_on_a_point(low, high, step):
    found = finer_grid(*reach_of(low, high, step), step)
    if found is None:
        return
    scale, zero = found
    assert scale <= np.float32(0.75 * step)
    assert 0 <= zero <= LEVELS


@settings(max_examples=300, deadline=None)
@given(low=LOWS, high=HIGHS)
def test_what_was_seen_lies_within_half_a_step_of_a_point(low, high):
    step = max(-low, high, 1e-3) / 127
    found = finer_grid(*reach_of(low, high, step), step)
    if found is None:
        return
    scale, zero = float(found[0]), found[1]
    for value in (low, high, 0.0):
        point = (np.clip(np.rint(value / scale) + zero, 0, LEVELS) - zero) * scale
        assert abs(point - value) <= 0.501 * scale


def test_a_symmetric_tensor_keeps_its_grid_and_a_skewed_one_does_not():
    assert finer_grid(*reach_of(-4.0, 4.0, 4 / 127), 4 / 127) is None
    assert finer_grid(*reach_of(-0.2, 4.0, 4 / 127), 4 / 127) is not None
    assert finer_grid(0.0, 0.0, 1.0) is None
