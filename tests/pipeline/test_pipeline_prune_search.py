"""The search for channel counts: real engines timed on this machine, widths as its outcome, and what it refuses."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from quick import QUICK
from torch import nn

import edgeopt
from edgeopt.core.errors import RecipeError
from edgeopt.core.measurement import Interval, Measurement
from edgeopt.pipeline import prune_variants
from edgeopt.pipeline.prune_search import _Search, resolve_pruning
from edgeopt.pipeline.prune_variants import Variants
from edgeopt.recipes.load import load_recipe
from edgeopt.recipes.schema import Prune

FAST = (
    *QUICK,
    "limits.latency_ratio=null",
    "limits.drop_pp=null",
    "objective=size",  # so that what is pruned ships, whatever so few samples say of its speed
)
PRUNE = "- prune: {importance: l2, latency_ratio: 0.8}\n"
FINETUNE = (
    "- finetune:\n    batchnorm: frozen\n    training: {epochs: 1, batch_size: 64, optimizer: sgd, learning_rate: 0.05, "
    "warmup_epochs: 0, schedule: constant, weight_decay: 0, clip_norm: null, loss: task, distillation: null, "
    "precision: 32-true, patience: null}\n"
)


@pytest.fixture(scope="module", autouse=True)
def few(tmp_path_factory):
    """A cache of its own, and fewer inferences per narrower model than a user's run takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEOPT_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(prune_variants, "_SAMPLES", 60)
        yield


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """Three convolutions of 64 channels on 16×16: wide enough for a narrower one to be faster beyond doubt."""
    folder = tmp_path_factory.mktemp("work")
    torch.manual_seed(0)
    convs = [nn.Conv2d(3, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1), nn.Conv2d(64, 64, 3, padding=1)]
    body = [layer for conv in convs for layer in (conv, nn.ReLU())]
    net = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 4)).eval()
    x = torch.randn(260, 3, 16, 16)
    with torch.no_grad():
        scores = net(x)
    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.export.export(net, (x[:2].clone(),), dynamic_shapes=({0: batch},))
    torch.export.save(program, folder / "net.pt2")
    x, y = x.numpy(), (scores - scores.mean(0)).argmax(1).numpy()
    np.savez(folder / "net.npz", x=x[:100], y=y[:100], x_tune=x[100:196], y_tune=y[100:196], x_calibration=x[196:])
    return folder


def recipe_of(work, *steps):
    path = work / f"r{abs(hash(steps)) % 10**8}.yaml"
    path.write_text(f"schema_version: 1\nname: {path.stem}\nsteps:\n{''.join(steps)}")
    return path


def compiled(work, output, *steps, **more):
    options = {"model": work / "net.pt2", "data": str(work / "net.npz"), "overrides": FAST, "target": "local"}
    if "recipe" not in more:
        more["recipe"] = recipe_of(work, *steps)
    return edgeopt.compile(**(options | {"output": output} | more))


@pytest.fixture(scope="module")
def found(work, tmp_path_factory):
    """One real search, and the folder of its bundle."""
    folder = tmp_path_factory.mktemp("found") / "bundle"
    return compiled(work, folder, PRUNE).report, folder


def step_of(report):
    return report.recipe["steps"][0]["prune"]


class TestARealSearch:
    def test_ends_in_widths_that_were_measured_to_be_fast_enough(self, found):
        report, _ = found
        (section,) = report.pruning
        assert section.measured.interval.high <= section.wanted == 0.8
        assert step_of(report)["latency_ratio"] is None
        assert step_of(report)["widths"] == {row.name: row.chosen for row in section.curves if row.chosen < row.units}
        assert step_of(report)["widths"]

    def test_times_each_group_alone_at_a_few_counts(self, found):
        (section,) = found[0].pruning
        assert [row.units for row in section.curves] == [64, 64, 64]
        for row in section.curves:
            counts = [point.kept for point in row.points]
            assert len(counts) == 3
            assert counts == sorted(counts, reverse=True)
            assert all(point.latency.interval is not None for point in row.points)
            assert all(point.divergence.value > 0 and point.divergence.n == 96 for point in row.points)

    def test_the_step_then_leaves_exactly_these_widths(self, found):
        report, _ = found
        (told,) = report.pruned
        assert {row.name: row.kept for row in told.groups if row.kept < row.units} == step_of(report)["widths"]
        assert told.macs_kept < told.macs
        assert [one.reason for one in told.pinned] == ["it is an output of the model"]

    def test_the_report_tells_both_in_every_form(self, found):
        _, folder = found
        for kind in ("md", "html"):
            text = (folder / f"report.{kind}").read_text()
            assert "Widths for 0.8× of the latency" in text
            assert "multiply-accumulates are left" in text

    def test_a_step_found_in_the_cache_is_told_again(self, found, work, tmp_path):
        report, folder = found
        again = compiled(work, tmp_path / "again", recipe=folder / "recipe.yaml", overrides=()).report
        assert {row.name: row.cached for row in again.stages}["prune"]
        assert again.pruned == report.pruned

    def test_the_bundle_s_recipe_repeats_the_outcome_without_a_search(self, found, work, tmp_path):
        report, folder = found
        again = compiled(work, tmp_path / "again", recipe=folder / "recipe.yaml", overrides=(), use_cache=False).report
        assert again.pruning == ()
        assert again.pruned == report.pruned
        kept = [row.kept for row in report.pruned[0].groups]
        for path in (folder, tmp_path / "again"):
            assert conv_widths(path / "model.onnx") == kept


def conv_widths(path):
    """How many channels each convolution of a graph makes."""
    graph = onnx.load(path).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    return [shapes[node.input[1]][0] for node in graph.node if node.op_type == "Conv"]


def timed(value, *, around=0.01):
    return Measurement(
        name="latency_ratio",
        value=value,
        unit="1",
        interval=Interval(low=value - around, high=value + around, method="a test"),
        conditions={"p50_ms": value},
    )


def with_ratios(monkeypatch, ratio):
    """No engine is built: ``ratio`` says what each narrower model comes to."""
    monkeypatch.setattr(Variants, "ratios", lambda *given, **_: {kept: timed(ratio(kept)) for kept in given[2]})


class TestWhatIsNotFastEnough:
    def test_where_no_narrower_model_is_faster_the_refusal_shows_the_curve(self, work, tmp_path, monkeypatch):
        with_ratios(monkeypatch, lambda _: 1.0)
        with pytest.raises(RecipeError, match="Pruning makes this model no faster on onnxruntime, fp32") as refused:
            compiled(work, tmp_path / "bundle", PRUNE)
        assert "Units that stay → latency over the whole model's, onnxruntime, fp32: 0 (64): " in refused.value.got
        points = re.findall(r"(\d+) → 1\.000 \[0\.990, 1\.010\]", refused.value.got)
        assert len(points) == 9
        assert not (tmp_path / "bundle").exists()

    def test_where_the_plan_as_a_whole_is_no_faster_that_is_what_counts(self, work, tmp_path, monkeypatch):
        with_ratios(monkeypatch, lambda kept: 1.0 if len(kept) != 1 else 0.9)
        with pytest.raises(RecipeError, match=r"no faster.*Best plan, as a whole: 1\.000 \[0\.990, 1\.010\]"):
            compiled(work, tmp_path / "bundle", PRUNE)

    def test_where_the_fastest_is_not_fast_enough_it_says_what_can_be_asked_for(self, work, tmp_path, monkeypatch):
        with_ratios(monkeypatch, lambda kept: 0.97 ** len(kept))
        with pytest.raises(RecipeError, match=r"does not come to 0\.8 of the latency on onnxruntime, fp32") as refused:
            compiled(work, tmp_path / "bundle", PRUNE)
        assert "at best 0.913" in refused.value.got
        assert "latency_ratio=0.93" in refused.value.fix  # where its interval ends

    def test_a_plan_whose_groups_promise_too_much_is_tightened_until_it_holds(self, work, tmp_path, monkeypatch):
        """Together they are 5 % slower than the product of what each brings alone: the search allows for it."""
        with_ratios(monkeypatch, lambda kept: promised(kept) * (1.05 if len(kept) > 1 else 1.0))
        monkeypatch.setattr("edgeopt.pipeline.compile.Run.stages", stop)
        with pytest.raises(Searched) as done:
            compiled(work, tmp_path / "bundle", PRUNE)
        (section,) = done.value.sections
        assert section.measured.interval.high <= 0.8
        assert section.predicted < section.measured.value

    def test_where_an_interval_does_not_tell_the_plan_is_timed_for_longer_and_that_is_said(
        self, work, tmp_path, monkeypatch
    ):
        asked = []

        def ratios(_, planned, wanted, *, times=1):
            asked.extend((kept, times) for kept in wanted if len(kept) > 1)
            return {kept: timed(promised(kept), around=0.04 / times) for kept in wanted}

        monkeypatch.setattr(Variants, "ratios", ratios)
        monkeypatch.setattr("edgeopt.pipeline.compile.Run.stages", stop)
        with pytest.raises(Searched) as done:
            compiled(work, tmp_path / "bundle", PRUNE.replace("0.8", "0.5"))
        (section,) = done.value.sections
        assert section.measured.interval.high <= 0.5
        assert "(timed for longer, as fewer inferences did not tell)" in section.summary
        (first, once), (again, longer) = asked[:2]
        assert first == again
        assert (once, longer) == (1, 4)

    def test_a_plan_that_is_only_by_its_estimate_fast_enough_is_not_taken(self, work, tmp_path, monkeypatch):
        """However long it is timed, the interval goes beyond 0.8 until the plan is tightened."""
        monkeypatch.setattr(
            Variants,
            "ratios",
            lambda *given, **_: {
                kept: timed(promised(kept), around=0.03 if len(kept) > 1 else 0.01) for kept in given[2]
            },
        )
        monkeypatch.setattr("edgeopt.pipeline.compile.Run.stages", stop)
        with pytest.raises(Searched) as done:
            compiled(work, tmp_path / "bundle", PRUNE)
        (section,) = done.value.sections
        assert section.measured.value <= 0.77
        assert "timed for longer" not in section.summary

    def test_a_plan_that_could_not_be_run_is_not_called_slow(self, work, tmp_path, monkeypatch):
        def ratios(_, planned, wanted, **__):
            return {kept: timed(promised(kept)) for kept in wanted if len(kept) < 2}

        monkeypatch.setattr(Variants, "ratios", ratios)
        with pytest.raises(RecipeError, match=r"could not be run on onnxruntime, fp32.*0 at \d+, 2 at \d+") as refused:
            compiled(work, tmp_path / "bundle", PRUNE.replace("0.8", "0.4"))
        assert "faster" not in str(refused.value)
        assert "macs_ratio" in refused.value.fix

    def test_where_no_runtime_runs_the_model_nothing_can_be_timed(self, work, tmp_path, monkeypatch):
        monkeypatch.setattr(Variants, "ratios", lambda *_, **__: {})
        with pytest.raises(RecipeError, match=r"No runtime here runs the model.*macs_ratio"):
            compiled(work, tmp_path / "bundle", PRUNE)


def promised(kept):
    ratio = 1.0
    for _, count in kept:
        ratio *= 0.7 + 0.3 * count / 64
    return ratio


class Searched(Exception):
    """Carries the sections out."""

    def __init__(self, sections):
        self.sections = sections


def stop(run, plan, samples):
    raise Searched(run.context.pruning)


def test_a_group_inside_of_a_branch_that_goes_is_not_counted_beside_it():
    """``outer`` takes ``inner`` and ``middle`` along; ``other`` is none of theirs."""
    taken = {"outer": {"outer", "middle", "inner"}, "middle": {"middle", "inner"}}

    def swept(removed):
        return frozenset().union(*(taken.get(name, ()) for name in removed))

    channels = SimpleNamespace(swept=swept)
    search = SimpleNamespace(
        variants=SimpleNamespace(channels=channels, scores={name: np.zeros(4) for name in ("outer", "middle")})
    )
    kept = (("inner", 2), ("middle", 0), ("outer", 0), ("other", 2))
    assert _Search._without_swept(search, kept) == (("outer", 0), ("other", 2))
    assert _Search._without_swept(search, kept[:2]) == (("middle", 0),)
    assert _Search._without_swept(search, (kept[0], kept[3])) == (kept[0], kept[3])


class TestWhatIsRefusedBeforeAnyWork:
    @staticmethod
    def plan(work, *steps, here=True):
        recipe = load_recipe(recipe_of(work, *steps))
        return SimpleNamespace(recipe=recipe, measured_here=here, measured_reason="another architecture")

    @staticmethod
    def run(*, data=True, onnx_path=None):
        model = SimpleNamespace(name="net", onnx_path=onnx_path)
        return SimpleNamespace(data=object() if data else None, loaded=SimpleNamespace(model=model))

    def test_a_target_that_is_not_here(self, work):
        with pytest.raises(RecipeError, match=r"not measured on the target.*another architecture.*macs_ratio"):
            resolve_pruning(self.run(), self.plan(work, PRUNE, here=False), None)

    def test_no_data(self, work):
        with pytest.raises(RecipeError, match=r"needs data to weigh them by.*latency_ratio: 0\.8"):
            resolve_pruning(self.run(data=False), self.plan(work, PRUNE), None)

    def test_a_model_given_as_onnx(self, work):
        with pytest.raises(RecipeError, match="Pruning needs the PyTorch program"):
            resolve_pruning(self.run(onnx_path=Path("net.onnx")), self.plan(work, PRUNE), None)

    def test_a_step_before(self, work):
        with pytest.raises(RecipeError, match="prune must be the first step"):
            resolve_pruning(self.run(), self.plan(work, FINETUNE, PRUNE), None)

    def test_a_step_that_asks_for_no_latency_is_left_alone(self, work):
        plan = self.plan(work, "- prune: {importance: l2, ratio: 0.5}\n", here=False)
        assert resolve_pruning(self.run(data=False), plan, None) is plan
        assert plan.recipe.step(Prune).ratio == 0.5
