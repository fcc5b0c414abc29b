"""A bundle before the gate: verdicts, exit codes, and everything that cannot be judged."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from gate_bundles import drop, gate_bundle_at, of_other_data, plain_figure, right_and_wrong

from edgeopt.bundle.manifest import Contract, InputRecord, OutputRecord
from edgeopt.core.errors import BundleError, RecipeError
from edgeopt.core.measurement import Measurement
from edgeopt.measure.statistics import paired_difference
from edgeopt.pipeline.gate import gate_bundle
from edgeopt.recipes.gate import GateLimits, load_gate_limits


def limits(**sections):
    return GateLimits.model_validate({"schema_version": 1, **sections})


@pytest.mark.parametrize(
    ("figure", "policy", "status", "code"),
    [
        (drop(0.2, -0.1, 0.5), None, "PASS", 0),
        (drop(2.0, 1.2, 2.8), None, "FAIL", 4),
        (drop(2.0, 1.2, 2.8), "pass", "FAIL", 4),
        (drop(0.8, 0.1, 1.5), None, "INCONCLUSIVE", 5),
        (drop(0.8, 0.1, 1.5), "fail", "INCONCLUSIVE", 5),
        (drop(0.8, 0.1, 1.5), "pass", "INCONCLUSIVE", 0),
    ],
)
def test_the_verdict_is_the_exit_code(tmp_path, figure, policy, status, code):
    bundle = gate_bundle_at(tmp_path / "b", figures=[figure], limits={"drop_pp": 1.0})
    result = gate_bundle(bundle, on_inconclusive=policy)
    assert (result.status, result.exit_code) == (status, code)


def test_an_inconclusive_verdict_says_how_many_more_samples(tmp_path):
    bundle = gate_bundle_at(tmp_path / "b", figures=[drop(0.5, -0.5, 1.5, n=100)], limits={"drop_pp": 1.0})
    assert "About 300 more samples like these 100" in gate_bundle(bundle).summary


def test_the_limits_file_says_what_inconclusive_means_and_the_caller_overrules_it(tmp_path):
    bundle = gate_bundle_at(tmp_path / "b", figures=[drop(0.8, 0.1, 1.5)])
    asked = limits(limits={"drop_pp": 1.0}, on_inconclusive="pass")
    assert gate_bundle(bundle, limits=asked).exit_code == 0
    assert gate_bundle(bundle, limits=asked, on_inconclusive="fail").exit_code == 5


def test_absolute_limits_judge_recorded_figures(tmp_path):
    figures = [
        plain_figure("latency_p50_ms", 2.0, "ms"),
        plain_figure("latency_p99_ms", 5.0, "ms"),
        plain_figure("cold_start_ms", 80.0, "ms"),
        plain_figure("int8_macs_pct", 97.0, "%"),
        plain_figure("drop_log_loss_nats", 0.3, "nats"),
    ]
    bundle = gate_bundle_at(tmp_path / "b", figures=figures)
    asked = {
        "latency_p50_ms": 2.5,
        "latency_p99_ms": 4.0,
        "cold_start_ms": 100,
        "int8_macs": 0.98,
        "drops": {"log_loss_nats": 0.1},
    }
    result = gate_bundle(bundle, limits=limits(limits=asked))
    assert {row.id: row.status for row in result.rows} == {
        "limits.latency_p50_ms": "PASS",
        "limits.latency_p99_ms": "FAIL",
        "limits.cold_start_ms": "PASS",
        "limits.int8_macs": "FAIL",
        "limits.drops.log_loss_nats": "FAIL",
    }


def test_a_figure_without_value_cannot_be_told(tmp_path):
    figure = Measurement(name="peak_memory_mib", value=None, unit="MiB", reason="the kernel hides it")
    bundle = gate_bundle_at(tmp_path / "b", figures=[figure])
    result = gate_bundle(bundle, limits=limits(limits={"peak_memory_mib": 10}))
    assert result.exit_code == 5
    assert "the kernel hides it" in result.summary


class TestAgainstABaseline:
    def test_the_drop_is_that_of_the_same_samples(self, tmp_path):
        mine = gate_bundle_at(tmp_path / "mine", outcomes=right_and_wrong(900, range(30)))
        theirs = gate_bundle_at(tmp_path / "theirs", outcomes=right_and_wrong(900, range(20, 40)))
        (row,) = gate_bundle(mine, baseline=str(theirs), limits=limits(baseline={"drop_pp": 1})).rows
        expected = paired_difference(20, 10, 900)  # 20 only the baseline has right, 10 only the candidate
        assert row.figure.value == pytest.approx(100 * 10 / 900)
        assert (row.figure.interval.low, row.figure.interval.high) == pytest.approx(
            (100 * expected.low, 100 * expected.high)
        )
        assert (row.figure.conditions["only_reference"], row.figure.conditions["only_candidate"]) == (20, 10)

    @pytest.mark.parametrize(("wrong", "status"), [(0, "PASS"), (8, "INCONCLUSIVE"), (60, "FAIL")])
    def test_each_verdict(self, tmp_path, wrong, status):
        mine = gate_bundle_at(tmp_path / "mine", outcomes=right_and_wrong(900, range(wrong)))
        theirs = gate_bundle_at(tmp_path / "theirs", outcomes=right_and_wrong(900))
        assert gate_bundle(mine, baseline=str(theirs), limits=limits(baseline={"drop_pp": 1})).status == status

    def test_agreement_and_the_worst_slice_find_what_accuracy_hides(self, tmp_path):
        """As many right on both sides, and yet one class is lost."""
        lost = range(0, 300, 3)  # of class 0
        mine = gate_bundle_at(tmp_path / "mine", outcomes=right_and_wrong(900, lost))
        theirs = gate_bundle_at(tmp_path / "theirs", outcomes=right_and_wrong(900, range(1, 300, 3)))
        asked = limits(baseline={"drop_pp": 2, "agreement": 0.95, "worst_slice_drop_pp": 5})
        rows = {row.id: row for row in gate_bundle(mine, baseline=str(theirs), limits=asked).rows}
        assert rows["baseline.drop_pp"].figure.value == 0
        assert rows["baseline.agreement"].status == rows["baseline.worst_slice_drop_pp"].status == "FAIL"
        assert "in class class 0" in rows["baseline.worst_slice_drop_pp"].text

    def test_size_and_memory_are_ratios(self, tmp_path):
        def at(name, size, memory):
            return gate_bundle_at(
                tmp_path / name,
                figures=[plain_figure("size_mib", size, "MiB"), plain_figure("peak_memory_mib", memory, "MiB")],
            )

        asked = limits(baseline={"size_ratio": 1.0, "peak_memory_ratio": 1.1})
        result = gate_bundle(at("mine", 1.0, 12.0), baseline=str(at("theirs", 2.0, 10.0)), limits=asked)
        assert [(row.figure.value, row.status) for row in result.rows] == [(1.2, "FAIL"), (0.5, "PASS")]

    def test_latency_is_measured_now_in_turns(self, tmp_path):
        """The same engine on both sides; the limit is so wide that no noise of a shared machine reaches it."""
        mine, theirs = (gate_bundle_at(tmp_path / name) for name in ("mine", "theirs"))
        asked = limits(baseline={"latency_ratio": 1000})
        result = gate_bundle(mine, baseline=str(theirs), limits=asked)
        assert result.status == "PASS"
        assert result.rows[0].figure.conditions["noise_floor_pct"] >= 0
        assert "noise floor" in result.notes[0]


def refused(match, tmp_path, asked, *, mine=None, theirs=None, error=BundleError):
    ours = gate_bundle_at(tmp_path / "mine", **({"outcomes": right_and_wrong(90)} | (mine or {})))
    others = gate_bundle_at(tmp_path / "theirs", **({"outcomes": right_and_wrong(90)} | (theirs or {})))
    with pytest.raises(error, match=match):
        gate_bundle(ours, baseline=str(others), limits=limits(baseline=asked))


class TestWhatIsRefused:
    def test_other_data(self, tmp_path):
        other = {"outcomes": of_other_data(right_and_wrong(80))}
        refused(r"other data.*80 test samples against 90.*000000000000", tmp_path, {"drop_pp": 1}, theirs=other)

    def test_other_inputs(self, tmp_path):
        contract = Contract(
            inputs=(InputRecord(name="x", dtype="float32", shape=("batch", 3)),),
            outputs=(OutputRecord(name="logits", dtype="float32", shape=("batch", 3)),),
        )
        refused("other inputs", tmp_path, {"drop_pp": 1}, theirs={"contract": contract})

    def test_other_classes(self, tmp_path):
        plain = gate_bundle_at(tmp_path / "plain")
        from edgeopt.bundle.load import load_bundle

        contract = load_bundle(plain).manifest.contract.model_copy(update={"classes": ("cat", "dog", "cow")})
        refused("other classes.*cow", tmp_path, {"drop_pp": 1}, theirs={"contract": contract})

    def test_no_outcomes(self, tmp_path):
        refused("baseline holds no outcomes", tmp_path, {"drop_pp": 1}, theirs={"outcomes": None})
        refused("bundle holds no outcomes", tmp_path, {"agreement": 0.9}, mine={"outcomes": None})

    def test_too_few_samples(self, tmp_path):
        few = {"outcomes": right_and_wrong(9)}
        refused("no interval can be had from fewer than 10", tmp_path, {"drop_pp": 1}, mine=few, theirs=few)

    def test_a_metric_that_was_not_kept(self, tmp_path):
        refused(
            r"baseline\.drops\.accuracy_top1.*nearest first: accuracy_top1_pct",
            tmp_path,
            {"drops": {"accuracy_top1": 1}},
            error=RecipeError,
        )

    def test_a_metric_of_ones_own(self, tmp_path):
        outcomes = right_and_wrong(90)
        own = dataclasses.replace(outcomes, candidate={**outcomes.candidate, "cost": {"value": np.zeros(90)}})
        refused(
            "metric of your own",
            tmp_path,
            {"drops": {"cost": 1}},
            mine={"outcomes": own},
            theirs={"outcomes": own},
            error=RecipeError,
        )

    def test_outcomes_that_are_none_of_the_metric(self, tmp_path):
        odd = {
            "outcomes": dataclasses.replace(right_and_wrong(90), candidate={"accuracy_top1_pct": {"v": np.ones(90)}})
        }
        refused("do not hold what their metrics keep", tmp_path, {"drop_pp": 1}, theirs=odd)

    def test_no_predictions(self, tmp_path):
        outcomes = right_and_wrong(90)
        kept = {"accuracy_top1_pct": outcomes.candidate["accuracy_top1_pct"]}
        without = {"outcomes": dataclasses.replace(outcomes, candidate=kept)}
        refused("baseline holds no predictions", tmp_path, {"agreement": 0.9}, theirs=without)

    def test_memory_of_another_device(self, tmp_path):
        refused("another device.*bench", tmp_path, {"peak_memory_ratio": 1}, theirs={"device": "bench"})

    def test_a_metric_that_the_report_does_not_have(self, tmp_path):
        bundle = gate_bundle_at(tmp_path / "b", figures=[plain_figure("drop_f1_macro_pct", 0.1, "pp")])
        with pytest.raises(RecipeError, match=r"limits\.drops\.f1_macro.*f1_macro_pct"):
            gate_bundle(bundle, limits=limits(limits={"drops": {"f1_macro": 1}}))

    def test_a_tampered_bundle(self, tmp_path):
        bundle = gate_bundle_at(tmp_path / "b", figures=[drop(2.0, 1.2, 2.8)], limits={"drop_pp": 1.0})
        report = bundle / "report.json"
        report.write_text(report.read_text().replace('"value": 2.0', '"value": 0.0'))
        with pytest.raises(BundleError, match=r"not as it was written.*report\.json"):
            gate_bundle(bundle)

    def test_a_tampered_baseline(self, tmp_path):
        mine, theirs = (gate_bundle_at(tmp_path / name, outcomes=right_and_wrong(90)) for name in ("mine", "theirs"))
        (theirs / "outcomes.npz").unlink()
        with pytest.raises(BundleError, match=r"outcomes\.npz: the file is missing"):
            gate_bundle(mine, baseline=str(theirs), limits=limits(baseline={"drop_pp": 1}))

    def test_a_newer_schema(self, tmp_path):
        bundle = gate_bundle_at(tmp_path / "b", limits={"drop_pp": 1.0})
        manifest = json.loads((bundle / "manifest.json").read_text())
        (bundle / "manifest.json").write_text(json.dumps(manifest | {"schema_version": 99}))
        with pytest.raises(BundleError, match="newer edgeopt"):
            gate_bundle(bundle)

    def test_no_limit_at_all(self, tmp_path):
        with pytest.raises(RecipeError, match="recipe sets no limit"):
            gate_bundle(gate_bundle_at(tmp_path / "b"))

    def test_a_baseline_that_nothing_is_said_of_and_the_reverse(self, tmp_path):
        bundle = gate_bundle_at(tmp_path / "b", figures=[drop(0, 0, 0)])
        with pytest.raises(RecipeError, match="says nothing of it"):
            gate_bundle(bundle, baseline=str(bundle), limits=limits(limits={"drop_pp": 1}))
        with pytest.raises(RecipeError, match="none was given"):
            gate_bundle(bundle, limits=limits(baseline={"drop_pp": 1}))


class TestTheLimitsFile:
    def test_unknown_keys_get_the_nearest(self, tmp_path):
        path = tmp_path / "limits.yaml"
        path.write_text("schema_version: 1\nbaseline: {latency_p99: 1.1}\n")
        with pytest.raises(
            RecipeError, match=r"unknown key baseline\.latency_p99; nearest valid key: latency_p99_ratio"
        ):
            load_gate_limits(path)

    def test_no_limit_is_no_file(self, tmp_path):
        path = tmp_path / "limits.yaml"
        path.write_text("schema_version: 1\n")
        with pytest.raises(RecipeError, match="no limit is set"):
            load_gate_limits(path)

    @pytest.mark.parametrize("version", ["2", "'1'"])
    def test_another_schema_version_is_refused(self, tmp_path, version):
        path = tmp_path / "limits.yaml"
        path.write_text(f"schema_version: {version}\nlimits: {{drop_pp: 1}}\n")
        with pytest.raises(RecipeError, match="schema_version"):
            load_gate_limits(path)


def test_shares_of_other_metrics_are_bootstrapped_and_agree_with_the_closed_form(tmp_path):
    """Right or wrong as float64: the paired bootstrap must come near Tango's interval."""
    mine, theirs = right_and_wrong(900, range(60)), right_and_wrong(900, range(40, 70))

    def as_float(outcomes):
        value = outcomes.candidate["accuracy_top1_pct"]["value"].astype(np.float64)
        return dataclasses.replace(outcomes, candidate={"accuracy_top1_pct": {"value": value}})

    from edgeopt.measure.metrics import METRICS
    from edgeopt.measure.paired import paired_drop

    metric = METRICS["accuracy_top1_pct"]()
    exact, near = (
        paired_drop(metric, b.candidate[metric.name], a.candidate[metric.name], seed=0)
        for a, b in ((mine, theirs), (as_float(mine), as_float(theirs)))
    )
    assert near.value == exact.value
    assert near.interval.low == pytest.approx(exact.interval.low, abs=0.3)
    assert near.interval.high == pytest.approx(exact.interval.high, abs=0.3)
    assert near.conditions["p"] == pytest.approx(exact.conditions["p"], abs=0.01)
