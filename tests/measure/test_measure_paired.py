from __future__ import annotations

import numpy as np
import pytest

from edgeopt.core.slices import SliceColumn
from edgeopt.measure import statistics
from edgeopt.measure.metrics import METRICS
from edgeopt.measure.paired import paired_drop, slice_rows

TOP_ONE = METRICS["accuracy_top1_pct"]()


def right(*runs):
    """``right((True, 5), (False, 2))``: five samples that are right, then two that are not."""
    return {"value": np.concatenate([np.full(count, value) for value, count in runs])}


def test_the_drop_of_accuracy_is_tangos():
    reference, candidate = right((True, 90), (False, 10)), right((False, 6), (True, 88), (False, 6))
    drop = paired_drop(TOP_ONE, reference, candidate)
    lost, won = drop.conditions["only_reference"], drop.conditions["only_candidate"]
    assert (lost, won) == (6, 4)
    wanted = statistics.paired_difference(6, 4, 100)
    assert drop.value == pytest.approx(2.0)
    assert (drop.interval.low, drop.interval.high) == pytest.approx((100 * wanted.low, 100 * wanted.high))
    assert drop.conditions["p"] == statistics.mcnemar_p(6, 4)
    assert (drop.name, drop.unit, drop.n) == ("drop_pp", "pp", 100)


def test_an_error_that_grows_is_a_drop():
    rng = np.random.default_rng(0)
    metric = METRICS["mae"]()
    errors = rng.exponential(size=300)
    drop = paired_drop(metric, {"value": errors}, {"value": errors + 0.1 + 0.01 * rng.normal(size=300)})
    assert drop.value == pytest.approx(0.1, abs=0.01)
    assert drop.interval.low > 0.09
    assert drop.conditions["p"] < 1e-6
    assert (drop.name, drop.unit) == ("drop_mae", "1")


def test_a_figure_that_is_no_mean_is_resampled_whole():
    rng = np.random.default_rng(0)
    metric = METRICS["f1_macro_pct"]()
    label = rng.integers(0, 3, 400)
    predicted = np.where(rng.random(400) < 0.8, label, (label + 1) % 3)
    worse = np.where(rng.random(400) < 0.1, (predicted + 1) % 3, predicted)
    drop = paired_drop(metric, {"label": label, "predicted": predicted}, {"label": label, "predicted": worse})
    assert drop.interval.method.startswith("BCa")
    assert 0 < drop.interval.low < drop.value < drop.interval.high
    assert "p" not in drop.conditions


def test_one_seed_gives_one_interval():
    rng = np.random.default_rng(0)
    metric = METRICS["mae"]()
    one, other = {"value": rng.random(50)}, {"value": rng.random(50)}
    assert paired_drop(metric, one, other, seed=1) == paired_drop(metric, one, other, seed=1)


def test_fewer_samples_than_an_interval_needs_are_not_judged():
    drop = paired_drop(TOP_ONE, right((True, 9)), right((True, 9)))
    assert drop.value is None
    assert "fewer than the 10" in drop.reason


def test_a_figure_that_the_samples_do_not_define_is_not_judged():
    metric = METRICS["r2"]()
    same = {"squared": np.ones((20, 1)), "target": np.ones((20, 1))}
    assert "not defined" in paired_drop(metric, same, same).reason


def test_slices_come_worst_first_and_their_p_values_are_adjusted():
    # Night loses 20 of 50, day nothing; five samples have no lighting, the three at dusk are too few.
    codes = np.repeat([0, 1, 2, -1], [100, 50, 3, 5]).astype(np.int32)
    reference, candidate = right((True, 158)), right((True, 100), (False, 20), (True, 38))
    rows = slice_rows(
        TOP_ONE, reference, candidate, {"lighting": SliceColumn(codes=codes, values=("day", "night", "dusk", "never"))}
    )
    assert [row.value for row in rows] == ["night", "day", "dusk"]
    night, day, dusk = rows
    assert (night.samples, night.figure.value, night.drop.value) == (50, 60.0, 40.0)
    assert night.p_adjusted.value == pytest.approx(2 * statistics.mcnemar_p(20, 0)), "two slices could be tested"
    assert day.p_adjusted.value == 1.0
    assert dusk.drop.value is None
    assert dusk.p_adjusted.value is None


def test_among_many_slices_without_a_drop_none_is_found():
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(40):
        reference, candidate = {"value": rng.random(2000) < 0.9}, {"value": rng.random(2000) < 0.9}
        codes = rng.integers(0, 40, 2000).astype(np.int32)
        column = SliceColumn(codes=codes, values=tuple(map(str, range(40))))
        rows = slice_rows(TOP_ONE, reference, candidate, {"column": column})
        alarms += any((row.p_adjusted.value or 1.0) < 0.05 for row in rows)
    assert alarms <= 6  # 5 % of 40 are two; without the correction nearly all alarm
