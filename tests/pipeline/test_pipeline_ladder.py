"""The ladder climbed with real runtimes: where it stops, what it skips, and what is left when it is cut short."""

from pathlib import Path

import numpy as np
import pytest
import torch
from quick import QUICK

import edgeopt
from edgeopt.bundle.load import load_bundle
from edgeopt.core.errors import DataError, EdgeOptError, GraphError
from edgeopt.core.events import ignore_progress
from edgeopt.pipeline import ladder
from edgeopt.pipeline.compile import dry_run
from edgeopt.pipeline.options import CompileOptions
from edgeopt.recipes.load import load_recipe

pytestmark = pytest.mark.usefixtures("own_cache")
ANY_SPEED = "limits.latency_ratio=null"  # a net this small is no faster in int8, and a busy machine is not steady
NEVER = "limits.drop_pp=-50"


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A net that tells the sign of a sum, its data, and three int8 recipes that differ in their name's number."""
    folder = tmp_path_factory.mktemp("work")
    generator = torch.Generator().manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2)).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    x = torch.randn(400, 6, generator=generator)
    torch.export.save(torch.export.export(net, (x[:1].clone(),)), folder / "net.pt2")
    y = net(x).argmax(1).numpy()
    np.savez(folder / "net.npz", x=x.numpy(), y=y, x_calibration=x[:64].numpy())
    for number, observer in enumerate(("minmax", "histogram", "percentile"), 1):
        (folder / f"r{number}.yaml").write_text(
            f"schema_version: 1\nname: r{number}\nsteps:\n  - quantize: "
            f"{{precision: int8, observer: {observer}, bias_correction: false, calibration_samples: 64}}\n"
        )
    return folder


def recipe(work, *rungs):
    names = [name if name in ("fp16", "int8-qat") else str(work / f"{name}.yaml") for name in rungs]
    path = work / f"ladder-{'-'.join(rungs)}.yaml"
    path.write_text(
        f"schema_version: 1\nname: ladder\nsteps: []\nladder: {names}\nlimits: {{drop_pp: 50, latency_ratio: 1.0}}\n"
    )
    return path


def options(work, tmp_path, rungs, overrides=(), **more):
    return {
        "model": work / "net.pt2",
        "data": str(work / "net.npz"),
        "recipe": recipe(work, *rungs),
        "overrides": [*QUICK, ANY_SPEED, *overrides],
        "output": tmp_path / "bundle",
        "target": "openvino-cpu",
    } | more


def climbed(*arguments, **more):
    return edgeopt.compile(**options(*arguments, **more))


def statuses(bundle):
    return {row.name: row.status for row in bundle.report.ladder.rungs}


def test_it_stops_at_the_first_rung_that_meets_the_limits(work, tmp_path):
    bundle = climbed(work, tmp_path, ("r1", "r2"))
    section = bundle.report.ladder
    assert statuses(bundle) == {"r1": "met", "r2": "not_needed"}
    assert section.ended == "met"
    assert section.summary.startswith("The ladder stopped at r1, which meets the limits.")
    assert [c.id for c in bundle.report.candidates] == ["openvino-fp32", "openvino-int8"]
    row = section.rungs[0]
    assert row.candidate == "openvino-int8"
    assert row.figure("drop_pp").interval is not None
    assert 0 < row.wall.value <= row.elapsed.value
    assert bundle.report.recipe["ladder"]
    assert len([s for s in bundle.report.stages if s.name == "write the bundle"]) == 1


@pytest.mark.long
def test_the_bundle_holds_the_recipe_that_made_what_is_shipped(work, tmp_path):
    bundle = climbed(work, tmp_path, ("fp16", "r1"), ["objective=size"])
    inside = load_recipe(bundle.directory / "recipe.yaml")
    made = {"fp32": "fp32", "fp16": "fp16", "int8": "r1"}[bundle.report.shipped.precision]
    assert inside.name == bundle.manifest.recipe == made
    assert inside.ladder == ()
    assert inside.limits.drop_pp == 50


def test_float16_that_meets_the_limits_does_not_end_the_climb_before_int8(work, tmp_path):
    bundle = climbed(work, tmp_path, ("fp16", "r1", "r2"), ["objective=size"])
    assert statuses(bundle) == {"fp16": "met", "r1": "met", "r2": "not_needed"}


@pytest.mark.long
def test_at_the_top_every_rung_has_its_figures_and_ids_are_unique(work, tmp_path):
    bundle = climbed(work, tmp_path, ("r1", "r2", "r3"), [NEVER])
    report = bundle.report
    assert set(statuses(bundle).values()) == {"missed"}
    assert report.ladder.ended == "top"
    ids = [c.id for c in report.candidates]
    assert ids == ["openvino-fp32", "openvino-int8", "openvino-int8@r2", "openvino-int8@r3"]
    assert [row.candidate for row in report.ladder.rungs] == ids[1:]
    assert all("drop_pp" in row.message for row in report.ladder.rungs)
    assert len(report.parity) == len(set(map(repr, report.parity)))
    # Measured in one interleaved run, so that the rungs can be compared.
    times = {c.figure("latency_p50_ms").conditions["measured_at"] for c in report.candidates}
    assert len(times) == 1
    assert report.shipped.id == "openvino-fp32"
    assert report.headline[0] == "The ladder was climbed to its top; no rung meets the limits."


def test_a_rung_of_the_same_layers_is_skipped_where_only_speed_misses(work, tmp_path):
    bundle = climbed(work, tmp_path, ("r1", "r2"), ["limits.latency_ratio=0.001"])
    assert statuses(bundle) == {"r1": "missed", "r2": "skipped"}
    assert "accurate enough but misses speed" in bundle.report.ladder.rungs[1].message


def fail_on(monkeypatch, name, error):
    """Let the graphs of one rung end in ``error``, as a stage in them would."""
    make = ladder.make_graphs

    def broken(run, plan, samples, stages):
        if plan.recipe.name == name:
            raise error
        return make(run, plan, samples, stages)

    monkeypatch.setattr(ladder, "make_graphs", broken)


def test_a_rung_that_fails_is_a_row_and_the_climb_goes_on(work, tmp_path, monkeypatch):
    fail_on(monkeypatch, "r1", GraphError("The stage broke."))
    bundle = climbed(work, tmp_path, ("r1", "r2"))
    assert statuses(bundle) == {"r1": "failed", "r2": "met"}
    assert bundle.report.ladder.rungs[0].message == "The stage broke."
    assert any("The rung failed: The stage broke." in event.message for event in bundle.report.events)


def test_where_every_rung_fails_the_first_error_is_the_runs(work, tmp_path, monkeypatch):
    fail_on(monkeypatch, "r1", GraphError("The stage broke."))
    with pytest.raises(GraphError, match="The stage broke"):
        climbed(work, tmp_path, ("r1",))
    assert not (tmp_path / "bundle").exists()


def test_bad_data_ends_the_first_rung_and_the_run(work, tmp_path, monkeypatch):
    fail_on(monkeypatch, "r1", DataError("The calibration data is constant."))
    fail_on(monkeypatch, "r2", AssertionError("no second rung is tried"))
    with pytest.raises(DataError, match="constant"):
        climbed(work, tmp_path, ("r1", "r2"))


def test_a_rung_whose_engines_differ_from_pytorch_has_failed_and_is_not_shipped(work, tmp_path):
    with pytest.raises(EdgeOptError, match=r"does not agree|may be shipped"):
        climbed(work, tmp_path, ("r1",), ["parity.int8_sqnr_db=200"])


class Interrupter:
    """A listener that raises when a stage of this name begins, once."""

    def __init__(self, part):
        self.part, self.told = part, False

    def __call__(self, progress):
        if self.part in progress.stage and not self.told:
            self.told = True
            raise KeyboardInterrupt


def test_ctrl_c_in_a_later_rung_yields_the_best_so_far(work, tmp_path):
    bundle = climbed(work, tmp_path, ("r1", "r2", "r3"), [NEVER], progress=Interrupter("compile openvino-int8@r2"))
    assert bundle.report.ladder.ended == "interrupted"
    assert statuses(bundle) == {"r1": "missed", "r2": "interrupted", "r3": "skipped"}
    assert bundle.report.headline[0] == "Interrupted at r2: this is the best so far."
    assert load_bundle(tmp_path / "bundle").report == bundle.report


def test_ctrl_c_in_the_first_rung_leaves_nothing(work, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        climbed(work, tmp_path, ("r1", "r2"), use_cache=False, progress=Interrupter("compile openvino-int8"))
    assert list(tmp_path.iterdir()) == []


def test_killed_in_a_later_rung_the_best_so_far_is_a_whole_bundle(work, tmp_path):
    seen = []

    def listen(progress):
        if "compile openvino-int8@r2" in progress.stage and not seen:
            seen.append(load_bundle(tmp_path / "bundle").report.ladder)

    climbed(work, tmp_path, ("r1", "r2"), [NEVER], progress=listen)
    assert [row.name for row in seen[0].rungs] == ["r1"]
    assert seen[0].ended == "open"


def test_the_time_limit_ends_the_climb_between_rungs_but_the_first_is_always_tried(work, tmp_path):
    bundle = climbed(work, tmp_path, ("r1", "r2"), [NEVER], max_minutes=1e-6)
    assert statuses(bundle)["r1"] in ("missed", "interrupted")
    assert statuses(bundle)["r2"] == "skipped"
    assert bundle.report.ladder.ended == "time"
    assert bundle.report.ladder.max_minutes == 1e-6
    assert "The time limit of 1e-06 minutes ended the ladder at r1" in bundle.report.headline[0]


def test_the_time_limit_abandons_a_rung_at_its_next_sign_of_progress(work, tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(ladder.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr("edgeopt.pipeline.compile.time.monotonic", lambda: clock[0])

    def listen(progress):
        if "compile openvino-int8@r2" in progress.stage:
            clock[0] = 61.0

    bundle = climbed(work, tmp_path, ("r1", "r2", "r3"), [NEVER], max_minutes=1.0, progress=listen)
    assert statuses(bundle) == {"r1": "missed", "r2": "interrupted", "r3": "skipped"}
    assert bundle.report.ladder.rungs[1].message == "The time was up."
    assert bundle.report.ladder.rungs[2].message == "The time was up (1 minutes)."


def test_where_nothing_can_be_timed_the_rung_that_met_the_limits_is_shipped(work, tmp_path):
    bundle = climbed(work, tmp_path, ("fp16", "r1", "r2"), ["limits.latency_ratio=1.0"], target="jetson")
    assert statuses(bundle) == {"fp16": "met", "r1": "met", "r2": "not_needed"}
    assert bundle.report.shipped.id == "tensorrt-int8"
    assert "The latency was not measured." in bundle.report.ladder.rungs[1].message


def test_the_dry_run_shows_the_ladder_and_what_would_be_skipped(work, tmp_path):
    plan = dry_run(CompileOptions(**options(work, tmp_path, ("fp16", "r1", "r2"))), ignore_progress)
    assert [(rung.name, bool(rung.skip)) for rung in plan.rungs] == [("fp16", True), ("r1", False), ("r2", False)]
    steps = plan.steps()
    assert any(step.startswith("fp16: skipped: float16 halves the file") for step in steps)
    assert any(step.startswith("r1: quantize to int8 (minmax observer, 64 calibration samples") for step in steps)
    assert plan.to_json()["rungs"][0]["skip"]
    assert list(tmp_path.iterdir()) == []


def test_without_a_training_split_the_rung_that_trains_is_skipped_and_says_what_is_missing(work, tmp_path):
    plan = dry_run(CompileOptions(**options(work, tmp_path, ("r1", "int8-qat"))), ignore_progress)
    assert [bool(rung.skip) for rung in plan.rungs] == [False, True]
    assert "needs a train split to train on, and there is none" in plan.rungs[1].skip
    assert all("int8-qat" not in candidate.id for candidate in plan.candidates)
    with pytest.raises(EdgeOptError, match="needs a train split"):
        dry_run(CompileOptions(**options(work, tmp_path, ("int8-qat",))), ignore_progress)


@pytest.mark.long
def test_a_second_run_is_the_same_from_the_cache(work, tmp_path):
    first = climbed(work, tmp_path, ("r1", "r2"), [NEVER])
    second = climbed(work, tmp_path, ("r1", "r2"), [NEVER])
    made = {stage.name for stage in second.report.stages if not stage.cached}
    assert made <= {"read and check the data", "write the bundle", "write the bundle so far"}
    assert [c.id for c in second.report.candidates] == [c.id for c in first.report.candidates]
