"""The integer program gives what trying every assignment gives."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeopt.compress.budget import Choice, choose

_NUMBERS = st.integers(0, 1000).map(lambda n: n / 1000)
_CHOICES = st.lists(st.builds(Choice, cost=_NUMBERS, load=_NUMBERS), min_size=1, max_size=3)


@given(st.lists(_CHOICES, min_size=1, max_size=5), st.integers(-1, 4000).map(lambda n: n / 1000))
def test_no_assignment_within_the_budget_costs_less_than_the_one_found(groups, budget):
    def total(taken, what):
        return sum(getattr(group[i], what) for group, i in zip(groups, taken, strict=True))

    every = itertools.product(*(range(len(group)) for group in groups))
    within = [taken for taken in every if total(taken, "load") <= budget + 1e-9]
    found = choose(groups, budget)
    if not within:
        assert found is None
        return
    assert found is not None
    assert total(found, "load") <= budget + 1e-6
    assert total(found, "cost") == pytest.approx(min(total(taken, "cost") for taken in within), abs=1e-6)


def test_between_equal_costs_the_tie_decides():
    either = [Choice(cost=1, load=0, tie=1.0), Choice(cost=1, load=0, tie=0.0)]
    assert choose([either, either], float("inf")) == (1, 1)


def test_loads_of_a_billionth_still_count():
    heavy = [Choice(cost=1, load=0), Choice(cost=0, load=2e-9)]
    assert choose([heavy, heavy], 3e-9) in {(0, 1), (1, 0)}


def test_no_groups_are_a_solution_of_any_budget_but_a_negative_one():
    assert choose([], 0.0) == ()
    assert choose([], -1.0) is None
