"""The words of a dry run leave out nothing that decides what a step does."""

from __future__ import annotations

from edgeopt.pipeline.plan_words import float_words
from edgeopt.recipes.schema import Prune


def words(**options):
    return float_words(Prune(importance="l2", **options))


def test_the_widths_of_each_group_are_told():
    assert "widths {stem +1: 48, blocks.3.first: 0}" in words(widths={"stem +1": 48, "blocks.3.first": 0})


def test_a_floor_of_zero_is_told():
    assert "floor 0.0" in words(ratio=0.5, floor=0)


def test_a_switch_that_is_off_is_told_where_it_is_on_by_default():
    assert "branches no" in words(ratio=0.5, branches=False)
    assert "branches yes" in words(ratio=0.5)


def test_what_is_not_given_is_not_told():
    told = words(ratio=0.5)
    assert "ratio 0.5" in told
    assert not any(name in told for name in ("macs_ratio", "widths", "skip", "None"))
