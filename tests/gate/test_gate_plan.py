from __future__ import annotations

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner
from sample_report import build_sample_report

from edgeopt.cli.plan_test import plan_test as command
from edgeopt.core.errors import BundleError, RecipeError
from edgeopt.gate.plan import observed, plan_test
from edgeopt.measure import statistics


def test_the_plan_asks_for_both_verdicts():
    (row,) = plan_test(max_drop=0.01, discordance=0.03).rows
    at = {"limit": 0.01, "discordance": 0.03, "power": 0.9}
    assert row.samples_to_pass == statistics.samples_needed(drop=0.0, **at)
    assert row.samples_to_fail == statistics.samples_needed(drop=0.02, **at)
    assert row.samples == max(row.samples_to_pass, row.samples_to_fail)
    assert row.pass_power is row.detectable_drop_pp is None, "nothing is known of a split at hand"


def test_with_fewer_samples_than_needed_the_power_is_below_the_wanted():
    needed = plan_test(max_drop=0.01, discordance=0.03).rows[0].samples_to_pass
    (row,) = plan_test(max_drop=0.01, discordance=0.03, samples=needed // 2).rows
    assert row.pass_power < 0.9
    assert row.holdable_limit_pp > 1.0


def test_a_range_is_planned_where_nothing_is_known_of_the_models():
    rows = plan_test(max_drop=0.01).rows
    assert len(rows) > 3
    assert [row.samples for row in rows] == sorted(row.samples for row in rows)


def shipping(**conditions):
    """The sample report whose shipped candidate's drop has these conditions."""
    report = build_sample_report()
    drop = report.shipped.figure("drop_pp")
    others = [m for m in report.shipped.measurements if m.name != "drop_pp"]
    shipped = report.shipped.model_copy(
        update={"measurements": (*others, replace(drop, conditions={**drop.conditions, **conditions}))}
    )
    return report.model_copy(update={"candidates": (shipped,)}), drop.n


def test_a_bundle_tells_how_often_its_models_differ():
    report, n = shipping(only_fp32_right=5, only_candidate_right=4)
    found = observed(report)
    assert (found.samples, found.discordance, found.candidate) == (n, 9 / n, report.shipped.id)


def test_a_bundle_whose_drop_was_not_counted_tells_nothing():
    report, _ = shipping()
    with pytest.raises(BundleError, match="how often FP32 and candidate differ"):
        observed(report)


def test_a_bundle_that_ships_fp32_tells_nothing():
    report = build_sample_report()
    reference = next(c for c in report.candidates if c.role == "reference").model_copy(update={"shipped": True})
    with pytest.raises(BundleError, match="FP32 reference itself"):
        observed(report.model_copy(update={"candidates": (reference,)}))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_drop": 0.0}, "between 0 and 50"),
        ({"max_drop": 0.01, "power": 1.0}, "between 0.5 and 1"),
        ({"max_drop": 0.01, "expected_drop": 0.01}, "smaller than the limit"),
        ({"max_drop": 0.01, "discordance": 1.5}, "share of the samples"),
        ({"max_drop": 0.01, "samples": 0}, "at least one sample"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(options, message):
    with pytest.raises(RecipeError, match=message):
        plan_test(**options)


@pytest.mark.parametrize("written", ["1pp", "1 %", "0.01", "1.0pp"])
def test_percentage_points_are_read_in_every_way_they_are_written(written):
    done = CliRunner().invoke(command, ["--max-drop", written, "--discordance", "3pp", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["max_drop_pp"] == pytest.approx(1.0)


@pytest.mark.parametrize("written", ["1", "one", "", "1ppm"])
def test_a_number_without_a_unit_is_not_guessed_at(written):
    done = CliRunner().invoke(command, ["--max-drop", written])
    assert done.exit_code == 2
    assert "write 1pp" in done.output


def test_the_terminal_says_what_the_samples_at_hand_can_tell():
    done = CliRunner().invoke(command, ["--max-drop", "1pp", "--discordance", "3pp", "--samples", "2000"])
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    assert "With the 2,000 samples at hand" in text
    assert "the tightest limit that it would PASS is 1.30 pp" in text
