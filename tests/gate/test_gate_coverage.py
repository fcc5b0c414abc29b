"""A limit on what runs in int8: proven by the runtime, missed with the operations outside named, else not told."""

from __future__ import annotations

import pytest
from gate_bundles import gate_bundle_at, plain_figure

from edgeopt.bundle.coverage import CoverageRow, CoverageSection
from edgeopt.core.measurement import not_measured
from edgeopt.gate.coverage import judge_coverage
from edgeopt.gate.limits import judge
from edgeopt.pipeline.gate import gate_bundle
from edgeopt.recipes.gate import GateLimits
from edgeopt.recipes.settings import Limits

LIMITS = Limits(int8_macs=0.95)


def row(name, macs, runs_in="int8", cause="HardSwish stands between it and its QuantizeLinear."):
    inside = runs_in == "int8"
    return CoverageRow(node=name, op="Conv", macs=macs, runs_in=runs_in, cause="" if inside else cause)


def section(*rows, proxy=False):
    return CoverageSection(how="the profile", proxy=proxy, ops=rows)


def candidate(make, value, source="runtime", coverage=None, **conditions):
    figure = plain_figure(
        "int8_macs_pct", value, "%", conditions={"source": source, "how": "the profile", **conditions}
    )
    return make("ort-int8", coverage=coverage).model_copy(update={"measurements": (figure,)})


def test_what_the_runtime_runs_passes(make):
    verdict = judge(candidate(make, 95.0), LIMITS)
    assert (verdict.status, verdict.limits[0].message) == ("PASS", "Holds.")


def test_a_miss_lists_what_is_outside_with_its_share_and_cause_the_largest_first(make):
    told = section(row("small", 10, "float32"), row("large", 30, "float32", "Its input is float."), row("rest", 60))
    verdict = judge(candidate(make, 60.0, coverage=told), LIMITS)
    assert verdict.status == "FAIL"
    assert verdict.limits[0].message == (
        "Outside of int8: Conv large (30.0 % of the MACs): Its input is float; "
        "Conv small (10.0 % of the MACs): HardSwish stands between it and its QuantizeLinear."
    )
    assert "at least 95 %: missed. Outside of int8: Conv large" in verdict.summary


def test_of_many_outside_four_are_listed(make):
    told = section(*(row(f"c{i}", 10, "float32") for i in range(7)), row("rest", 30))
    assert judge(candidate(make, 30.0, coverage=told), LIMITS).limits[0].message.endswith("; and 3 more.")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"source": "plan"}, "the runtime did not tell"),
        ({"source": "stand-in"}, r"Holds on a stand-in \(the profile\)"),
        ({"source": None, "how": "planned in the graph, not read from the runtime"}, "the runtime did not tell"),
    ],
    ids=["plan", "stand-in", "a bundle of before"],
)
def test_enough_that_only_a_plan_or_a_stand_in_tells_proves_nothing(make, fields, message):
    verdict = judge(candidate(make, 100.0, **fields), LIMITS)
    assert verdict.status == "INCONCLUSIVE"
    assert message.replace("\\", "") in verdict.limits[0].message


@pytest.mark.parametrize("source", ["plan", "stand-in"])
def test_too_few_are_too_few_by_whoever_told(make, source):
    assert judge(candidate(make, 94.9, source), LIMITS).status == "FAIL"


def test_what_is_not_told_is_inconclusive(make):
    missing = make("ort-int8").model_copy(
        update={"measurements": (not_measured("int8_macs_pct", "%", "it does not tell of Conv a"),)}
    )
    figure, status, message = judge_coverage(missing, 95.0)
    assert (figure.reason, status, message) == ("it does not tell of Conv a", "INCONCLUSIVE", "Cannot be told.")
    assert judge_coverage(make("ort-int8"), 95.0)[0].reason == "the bundle has no such figure"


def test_the_gate_of_a_bundle_says_what_is_outside(tmp_path):
    figure = plain_figure("int8_macs_pct", 60.0, "%", conditions={"source": "runtime", "how": "the profile"})
    bundle = gate_bundle_at(tmp_path / "b", figures=[figure])
    asked = GateLimits.model_validate({"schema_version": 1, "limits": {"int8_macs": 0.95}})
    result = gate_bundle(bundle, limits=asked)
    assert (result.exit_code, result.rows[0].id, result.rows[0].status) == (4, "limits.int8_macs", "FAIL")
    assert result.rows[0].at_most is False
