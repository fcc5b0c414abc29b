"""Baselines as files, what can be compared with them, and the diff of two bundles."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from gate_bundles import gate_bundle_at, plain_figure, right_and_wrong

from edgeopt.bundle.baselines import (
    CURRENT,
    current_name,
    find_baseline,
    list_baselines,
    promote_baseline,
    save_baseline,
)
from edgeopt.bundle.diff import BundleDiff
from edgeopt.bundle.document import LayerRow
from edgeopt.cli.baseline import baseline as baseline_command
from edgeopt.cli.diff import diff as diff_command
from edgeopt.core.errors import BundleError
from edgeopt.core.measurement import not_measured
from edgeopt.gate.recorded_latency import recorded_ratios
from edgeopt.pipeline.diff import diff_bundles
from edgeopt.pipeline.gate import gate_bundle
from edgeopt.recipes.gate import GateLimits
from edgeopt.report.diff_page import diff_html, diff_markdown


def limits(**sections):
    return GateLimits.model_validate({"schema_version": 1, **sections})


def timed(folder, scale=1.0, *, seed=0, threads=1, batch=1, device="board", version="1", more=()):
    """A bundle with 20 recorded blocks of 20 latencies around ``scale`` ms."""
    times = scale * np.random.default_rng(seed).gamma(400, 1 / 400, 400)
    conditions = {"threads": threads, "batch": batch, "block": 20}
    p50 = plain_figure("latency_p50_ms", float(np.median(times)), "ms", conditions=conditions, n=400)
    return gate_bundle_at(
        folder, figures=[p50, *more], latency_ms=times.tolist(), device=device, runtime_version=version
    )


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "baselines"


class TestSaving:
    def test_what_is_saved_is_what_is_found(self, tmp_path, folder):
        bundle = gate_bundle_at(tmp_path / "b", outcomes=right_and_wrong(60, [1, 2]))
        path = save_baseline(bundle, folder, "v1")
        assert sorted(p.name for p in path.iterdir()) == ["baseline.json", "outcomes.npz"]
        for text in ("v1", str(path), str(path / "baseline.json")):
            found = find_baseline(text, folder)
            assert (found.document.name, found.bundle, len(found.outcomes)) == ("v1", None, 60)
        assert list_baselines(folder) == ("v1",)

    def test_nothing_is_replaced_without_force(self, tmp_path, folder):
        one = gate_bundle_at(tmp_path / "one", outcomes=right_and_wrong(60))
        other = gate_bundle_at(tmp_path / "other", outcomes=right_and_wrong(90))
        save_baseline(one, folder, "v1")
        with pytest.raises(BundleError, match=r"name already.*--force"):
            save_baseline(other, folder, "v1")
        assert len(find_baseline("v1", folder).outcomes) == 60
        save_baseline(other, folder, "v1", force=True)
        assert len(find_baseline("v1", folder).outcomes) == 90
        assert [p.name for p in folder.iterdir()] == ["v1"]

    @pytest.mark.parametrize("name", ["../out", "a/b", ".hidden", "current", "", " ", "a\nb"])
    def test_a_name_stays_in_the_folder(self, tmp_path, folder, name):
        bundle = gate_bundle_at(tmp_path / "b")
        if name == "":
            assert save_baseline(bundle, folder, name).name == "b"
            return
        with pytest.raises(BundleError, match="no name for a baseline"):
            save_baseline(bundle, folder, name)

    def test_a_changed_bundle_is_not_saved(self, tmp_path, folder):
        bundle = gate_bundle_at(tmp_path / "b")
        (bundle / "model.onnx").write_bytes(b"x")
        with pytest.raises(BundleError, match="not as it was written"):
            save_baseline(bundle, folder, "v1")
        assert not folder.exists()

    def test_promoting_makes_current(self, tmp_path, folder):
        save_baseline(gate_bundle_at(tmp_path / "b"), folder, "v1")
        with pytest.raises(BundleError, match="No baseline is the current one"):
            find_baseline(CURRENT, folder)
        assert promote_baseline(folder, "v1") is None
        assert (folder / CURRENT).read_text() == "v1\n"
        assert current_name(folder) == find_baseline(CURRENT, folder).document.name == "v1"
        with pytest.raises(BundleError, match=r"no baseline of that name.*Nearest first: v1"):
            promote_baseline(folder, "v2")

    def test_a_hostile_pointer_is_refused(self, tmp_path, folder):
        save_baseline(gate_bundle_at(tmp_path / "b"), folder, "v1")
        (folder / CURRENT).write_text("../../etc")
        with pytest.raises(BundleError, match="holds no name"):
            find_baseline(CURRENT, folder)

    def test_changed_outcomes_and_other_schemas_are_refused(self, tmp_path, folder):
        path = save_baseline(gate_bundle_at(tmp_path / "b", outcomes=right_and_wrong(60)), folder, "v1")
        (path / "outcomes.npz").write_bytes(b"x")
        with pytest.raises(BundleError, match="not those that were saved"):
            find_baseline("v1", folder)
        document = json.loads((path / "baseline.json").read_text())
        for version in (0, 2):
            (path / "baseline.json").write_text(json.dumps(document | {"schema_version": version}))
            with pytest.raises(BundleError, match="another schema version"):
                find_baseline("v1", folder)
        (path / "baseline.json").write_text(json.dumps(document | {"surprise": 1}))
        with pytest.raises(BundleError, match=r"malformed.*surprise"):
            find_baseline("v1", folder)


class TestAgainstAFile:
    def gate(self, tmp_path, mine, theirs, **asked):
        save_baseline(theirs, tmp_path / "baselines", "v1", force=True)
        return gate_bundle(mine, baseline="v1", folder=tmp_path / "baselines", limits=limits(baseline=asked))

    @pytest.mark.parametrize(("wrong", "code"), [(0, 0), (8, 5), (60, 4)])
    def test_samples_are_paired_with_the_saved_ones(self, tmp_path, wrong, code):
        mine = gate_bundle_at(tmp_path / "mine", outcomes=right_and_wrong(900, range(wrong)))
        theirs = gate_bundle_at(tmp_path / "theirs", outcomes=right_and_wrong(900))
        assert self.gate(tmp_path, mine, theirs, drop_pp=1).exit_code == code

    @pytest.mark.parametrize(("scale", "status"), [(1.0, "PASS"), (1.05, "INCONCLUSIVE"), (1.2, "FAIL")])
    def test_recorded_latencies_are_compared_by_blocks(self, tmp_path, scale, status):
        result = self.gate(tmp_path, timed(tmp_path / "m", scale), timed(tmp_path / "t", seed=1), latency_ratio=1.05)
        assert result.status == status
        assert any("two occasions" in note for note in result.notes)

    @pytest.mark.parametrize(
        ("changes", "match"),
        [
            ({"device": "other board"}, "another device.*other board"),
            ({"threads": 2}, "another number of threads.*threads 2"),
            ({"batch": 8}, "another batch.*batch 8"),
        ],
    )
    def test_other_conditions_are_refused(self, tmp_path, changes, match):
        with pytest.raises(BundleError, match=match):
            self.gate(tmp_path, timed(tmp_path / "m"), timed(tmp_path / "t", **changes), latency_ratio=1.05)

    def test_another_runtime_version_is_told(self, tmp_path):
        result = self.gate(tmp_path, timed(tmp_path / "m"), timed(tmp_path / "t", version="2"), latency_ratio=1.5)
        assert any("onnxruntime 2" in note for note in result.notes)

    def test_a_recorded_noise_floor_widens(self, tmp_path):
        noisy = [plain_figure("latency_noise_ratio", 1 / 1.2)]
        mine, theirs = timed(tmp_path / "m", 1.2), timed(tmp_path / "t", more=noisy)
        result = self.gate(tmp_path, mine, theirs, latency_ratio=1.05)
        assert result.status == "INCONCLUSIVE"
        assert "too noisy for the limit: an engine differs from itself by 20 %" in result.rows[0].message

    def test_without_recorded_blocks_nothing_can_be_told(self, tmp_path):
        mine, theirs = (gate_bundle_at(tmp_path / n) for n in ("m", "t"))
        assert self.gate(tmp_path, mine, theirs, latency_ratio=1.05).exit_code == 5


def test_the_unpaired_interval_covers_the_true_ratio(tmp_path):
    """50 pairs of equal engines: the 95 % interval leaves 1 out seldom."""
    sides = [find_baseline(str(timed(tmp_path / str(seed), seed=seed)), tmp_path).document for seed in range(11)]
    outside = 0
    for index, one in enumerate(sides):
        for other in sides[index + 1 :]:
            interval = recorded_ratios(one, other, seed=0)["latency_ratio"].interval
            outside += not interval.low <= 1 <= interval.high
    assert outside <= 8  # of 55; a sound interval is above that once in 700 times, were the pairs independent


class TestTheDiff:
    @pytest.fixture
    def diff(self, tmp_path) -> BundleDiff:
        before = gate_bundle_at(tmp_path / "before", outcomes=right_and_wrong(90, range(3)))
        after = gate_bundle_at(
            tmp_path / "after", outcomes=right_and_wrong(90, range(2, 9)), runtime_version="2", limits={"drop_pp": 9}
        )
        return diff_bundles(before, after)

    def test_samples_that_changed_sides_are_counted_both_ways(self, diff):
        samples = diff.samples
        assert (samples.only_before, samples.only_after, samples.changed) == (6, 2, 8)
        margins = [row.margin for row in samples.first]
        assert margins == sorted(margins, reverse=True)
        assert samples.first[0].index == 8
        assert {row.label for row in samples.first} == {"cat", "dog", "owl"}

    def test_what_else_changed(self, diff):
        assert ("runtime", "onnxruntime 1.31.1", "onnxruntime 2") in [(r.name, r.before, r.after) for r in diff.facts]
        assert [row.name for row in diff.recipe] == ["limits", "limits.drop_pp"]

    def test_other_samples_leave_a_reason(self, tmp_path):
        before = gate_bundle_at(tmp_path / "before", outcomes=right_and_wrong(90))
        after = gate_bundle_at(tmp_path / "after", outcomes=right_and_wrong(60))
        assert "other data" in diff_bundles(before, after).samples.reason

    def test_html_and_markdown_take_nothing_for_markup(self, tmp_path, diff):
        hostile = diff.model_copy(update={"before": diff.before.model_copy(update={"recipe": "<script>|"})})
        assert "&lt;script&gt;" in diff_html(hostile)
        assert "<script" not in diff_html(hostile)
        assert "\\<script\\>\\|" in diff_markdown(hostile)

    def test_metrics_are_paired(self, tmp_path):
        figure = plain_figure("accuracy_top1_pct", 90.0, "%")
        before = gate_bundle_at(tmp_path / "before", outcomes=right_and_wrong(90, range(3)), figures=[figure])
        after = gate_bundle_at(tmp_path / "after", outcomes=right_and_wrong(90, range(2, 9)), figures=[figure])
        (row,) = diff_bundles(before, after).figures
        assert row.paired
        assert row.change.value == pytest.approx(-100 * 4 / 90)
        assert row.change.interval.low < row.change.value < row.change.interval.high


def test_layers_that_changed_precision_are_those_that_differ():
    from edgeopt.pipeline.diff import _layers

    def row(name, precision):
        return LayerRow(
            name=name, op="conv", precision=precision, reason="", sqnr=not_measured("sqnr_db", "dB", "not asked")
        )

    changed = _layers((row("a", "int8"), row("b", "int8")), (row("a", "float"), row("b", "int8")), ("int8", "int8"))
    assert [(c.name, c.before, c.after) for c in changed] == [("a", "int8", "float")]
    assert [(c.before, c.after) for c in _layers((), (row("a", "int8"),), ("fp32", "int8"))] == [("fp32", "int8")]


def test_the_commands(tmp_path):
    bundle, folder = gate_bundle_at(tmp_path / "b", outcomes=right_and_wrong(60)), str(tmp_path / "baselines")

    def run(command, *arguments):
        done = CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    assert "No baselines" in run(baseline_command, "show", "--folder", folder)
    run(baseline_command, "save", bundle, "--name", "v1", "--folder", folder)
    run(baseline_command, "promote", "v1", "--folder", folder)
    assert run(baseline_command, "show", "--folder", folder) == "v1  (current)\n"
    assert "60, " in run(baseline_command, "show", "current", "--folder", folder)
    assert json.loads(run(baseline_command, "show", "v1", "--json", "--folder", folder))["name"] == "v1"
    assert "Nothing changed." in run(diff_command, bundle, bundle)
    run(diff_command, bundle, bundle, "-o", tmp_path / "d.html")
    assert (tmp_path / "d.html").read_text().startswith("<!doctype html>")
    assert json.loads(run(diff_command, bundle, bundle, "--json"))["kind"] == "edgeopt-diff"
