from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeopt.measure import statistics


def simulated(n, *, drop, discordance, limit, runs=2000):
    """Shares of PASS and FAIL, from the intervals themselves."""
    rng = np.random.default_rng(0)
    first, second = (discordance + drop) / 2, (discordance - drop) / 2
    passed = failed = 0
    for b, c, _ in rng.multinomial(n, [first, second, 1 - first - second], size=runs):
        interval = statistics.paired_difference(int(b), int(c), n)
        passed += interval.high <= limit
        failed += interval.low > limit
    return passed / runs, failed / runs


@pytest.mark.parametrize(("n", "drop", "discordance"), [(300, 0.0, 0.03), (1000, 0.0, 0.02), (800, 0.03, 0.05)])
def test_the_power_is_what_simulated_gates_do(n, drop, discordance):
    case = {"drop": drop, "discordance": discordance, "limit": 0.01}
    passed, failed = simulated(n, **case)
    error = 3 * math.sqrt(0.25 / 2000)
    assert statistics.pass_power(n, **case) == pytest.approx(passed, abs=error)
    assert statistics.fail_power(n, **case) == pytest.approx(failed, abs=error)


def test_at_the_planners_count_gates_come_to_their_verdict():
    for drop, which in ((0.0, 0), (0.02, 1)):
        case = {"drop": drop, "discordance": 0.03, "limit": 0.01}
        n = statistics.samples_needed(**case, power=0.9)
        assert simulated(n, **case)[which] >= 0.9 - 3 * math.sqrt(0.09 / 2000)
        assert simulated(n // 2, **case)[which] < 0.9, "half of them would have done"


@given(st.floats(0.01, 0.2), st.floats(0.1, 0.9))
@settings(max_examples=20, deadline=None)
def test_a_model_on_the_limit_seldom_passes_and_seldom_fails(discordance, share):
    case = {"drop": share * discordance, "discordance": discordance, "limit": share * discordance}
    # One side of a 95 % interval is 2.5 %; at 20 differing samples counts are too coarse to keep it exactly.
    assert statistics.pass_power(2000, **case) < 0.05
    assert statistics.fail_power(2000, **case) < 0.05


def test_identical_models_need_few_samples_and_no_power_is_lost():
    assert statistics.pass_power(2000, limit=0.01, drop=0.0, discordance=0.0) == 1.0
    assert statistics.samples_needed(limit=0.01, drop=0.0, discordance=0.0, power=0.9) < 400


def test_what_the_split_can_tell_sharpens_with_its_size():
    case = {"limit": 0.01, "discordance": 0.03, "power": 0.9}
    drops = [statistics.detectable_drop(n, **case) for n in (500, 2000, 10_000)]
    assert drops == sorted(drops, reverse=True)
    assert drops[-1] > 0.01
    limits = [statistics.holdable_limit(n, drop=0.0, discordance=0.03, power=0.9) for n in (500, 2000, 10_000)]
    assert limits == sorted(limits, reverse=True)
    # The limit that is found is held, and a slightly tighter one is not.
    at = {"drop": 0.0, "discordance": 0.03}
    assert (
        statistics.pass_power(2000, limit=limits[1], **at)
        >= 0.9
        > statistics.pass_power(2000, limit=limits[1] - 1e-3, **at)
    )


def test_a_gate_that_no_affordable_split_could_settle_is_told():
    assert statistics.samples_needed(limit=0.001, drop=0.0009, discordance=0.5, power=0.9, most=100_000) is None


@pytest.mark.parametrize("drop", [0.2, -0.2])
def test_a_drop_larger_than_the_discordance_is_refused(drop):
    with pytest.raises(ValueError, match="cannot be"):
        statistics.pass_power(100, limit=0.01, drop=drop, discordance=0.1)
