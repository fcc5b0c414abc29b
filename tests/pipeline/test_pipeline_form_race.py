"""A form is taken only where it was faster in every start, by more than its interval; the report has each start's figure."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edgeopt.core.measurement import Interval, Measurement, not_measured
from edgeopt.pipeline import form_race
from edgeopt.pipeline.form_race import LEAST_GAIN, REPEATS, STARTS, Race, run_race
from edgeopt.recipes.schema import Measure


def ratio(value, spread=0.005):
    return Measurement(
        name="latency_ratio",
        value=value,
        unit="1",
        n=200,
        interval=Interval(low=value - spread, high=value + spread, level=0.95, method="bootstrap"),
    )


@pytest.fixture
def race(monkeypatch):
    """Run a race whose starts come to the given ratios; also tell which forms were timed in which start."""
    timed = []

    def run(**ratios):
        def times(_race, first, others, start):
            assert first == "first"
            timed.append(tuple(others))
            return {form: ratios[form][start] for form in others}

        monkeypatch.setattr(form_race, "_times", times)
        engine = SimpleNamespace(runtime="onnxruntime", directory=Path())
        entries = Race(
            context=None,
            device=None,
            info=None,
            engines={form: (engine, form) for form in ("first", *ratios)},
            sample={"x": np.zeros((1, 1), np.float32)},
            config=Measure(),
            batch=1,
        )
        taken, events = run_race(entries)
        return taken, [event.message for event in events], timed

    return run


def test_a_form_that_is_faster_in_every_start_is_taken(race):
    taken, (message,), timed = race(other=[ratio(0.93), ratio(0.92), ratio(0.94)])
    assert taken == "other"
    assert len(timed) == STARTS
    assert message == (
        "The form other took 0.930 [0.925, 0.935], 0.920 [0.915, 0.925], 0.940 [0.935, 0.945] of the time of first"
        " (3 starts of 200 inferences): it is taken."
    )


def test_a_start_that_it_loses_before_any_win_ends_its_race(race):
    taken, (message,), timed = race(other=[ratio(1.01), ratio(0.93), ratio(0.9)])
    assert taken == "first"
    assert timed == [("other",)]
    assert "(1 start of 200 inferences): first is kept." in message


def test_one_loss_beside_wins_is_repeated_and_a_second_ends_its_race(race):
    taken, _, timed = race(other=[ratio(0.93), ratio(1.2), ratio(0.93), ratio(0.92)])
    assert (taken, len(timed)) == ("other", STARTS + 1)
    taken, _, timed = race(other=[ratio(0.93), ratio(1.2), ratio(0.93), ratio(1.1), ratio(0.9)])
    assert (taken, len(timed) - STARTS - 1) == ("first", 4)


@pytest.mark.parametrize(
    "one",
    [ratio(1.0), ratio(1 - LEAST_GAIN), not_measured("latency_ratio", "1", "it crashed")],
)
def test_a_gain_that_is_small_is_none(race, one):
    taken, _, timed = race(other=[one] * STARTS)
    assert taken == "first"
    assert len(timed) == 1


OPEN = ratio(0.95, spread=0.1)


def test_one_start_that_leaves_it_open_is_repeated(race):
    taken, (message,), timed = race(other=[ratio(0.93), OPEN, ratio(0.92), ratio(0.94)])
    assert taken == "other"
    assert len(timed) == STARTS + 1
    assert "(4 starts of 200 inferences): it is taken." in message


def test_a_start_whose_interval_holds_a_large_gain_is_no_loss(race):
    disturbed = ratio(1.1, spread=0.2)
    taken, _, timed = race(other=[disturbed, ratio(0.93), ratio(0.92), ratio(0.94)])
    assert (taken, len(timed)) == ("other", STARTS + 1)
    taken, _, timed = race(other=[ratio(1.1, spread=0.1), ratio(0.93)])
    assert (taken, len(timed) - STARTS - 1) == ("first", 1)


def test_more_starts_that_leave_it_open_than_are_repeated_end_its_race(race):
    taken, _, timed = race(other=[ratio(0.93), *[OPEN] * (REPEATS + 1), ratio(0.93)])
    assert taken == "first"
    assert len(timed) == REPEATS + 2


def test_a_form_that_has_won_waits_for_the_others(race):
    taken, _, timed = race(
        sure=[ratio(0.9), ratio(0.9), ratio(0.9)], open=[OPEN, ratio(0.95), ratio(0.95), ratio(0.95)]
    )
    assert taken == "sure"
    assert timed[-1] == ("open",)


def test_of_two_the_faster_is_taken_and_the_other_is_told_so(race):
    taken, messages, _ = race(slow=[ratio(0.95)] * STARTS, fast=[ratio(0.9)] * STARTS)
    assert taken == "fast"
    assert [message.rpartition(": ")[2] for message in messages] == ["fast is taken.", "it is taken."]


def test_of_two_that_are_as_fast_the_first_listed_is_taken(race):
    taken, messages, _ = race(accurate=[ratio(0.905)] * STARTS, coarse=[ratio(0.9)] * STARTS)
    assert taken == "accurate"
    assert [message.rpartition(": ")[2] for message in messages] == ["it is taken.", "accurate is taken."]
