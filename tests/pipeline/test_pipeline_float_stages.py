"""Each float step is a stage: kept, held against itself, measured beside the original, and told in the waterfall."""

import shutil
from dataclasses import replace
from pathlib import Path

import narrow_step
import numpy as np
import pytest
import torch
from narrow_step import Narrow, register
from quick import QUICK

import edgeopt
from edgeopt.compress.base import CUT_SHORT
from edgeopt.compress.training_steps import FinetuneStep
from edgeopt.core.errors import RecipeError
from edgeopt.model.identity import identify
from edgeopt.pipeline import compile as compiling
from edgeopt.pipeline.compile import dry_run
from edgeopt.pipeline.mixed import Timing
from edgeopt.pipeline.options import CompileOptions
from edgeopt.pipeline.verify import verify_bundle
from edgeopt.recipes.load import load_recipe

FAST = (
    *QUICK,
    "limits.latency_ratio=null",
    "limits.drop_pp=null",
)
FINETUNE = (
    "- finetune:\n    batchnorm: frozen\n    training: {epochs: 2, batch_size: 64, optimizer: sgd, learning_rate: 0.05, "
    "warmup_epochs: 0, schedule: constant, weight_decay: 0, clip_norm: null, loss: task, distillation: null, "
    "precision: 32-true, patience: null}\n"
)
QUANTIZE = "- quantize: {precision: int8, observer: minmax, bias_correction: false, calibration_samples: 64}\n"
MIXED = (
    "- mixed: {precision: int8, observer: minmax, bias_correction: false, calibration_samples: 64, "
    "budget: {drop_pp: 30}, latency_groups: 1, latency_samples: 10}\n"
)


@pytest.fixture(scope="module", autouse=True)
def registered(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEOPT_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        register(patch)
        yield


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A net that tells the sign of a sum, and data with a train split."""
    folder = tmp_path_factory.mktemp("work")
    generator = torch.Generator().manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2)).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    x = torch.randn(1200, 6, generator=generator)
    torch.export.save(torch.export.export(net, (x[:1].clone(),)), folder / "net.pt2")
    x, y = x.numpy(), net(x).argmax(1).numpy()
    np.savez(folder / "net.npz", x=x[:400], y=y[:400], x_train=x[400:], y_train=y[400:], x_calibration=x[400:464])
    np.savez(folder / "untrained.npz", x=x[:400], y=y[:400], x_calibration=x[400:464])
    return folder


def with_narrow(monkeypatch, *, place=0, keep=8):
    """Recipes have the test's own step, first or at another place."""

    def load(name, overrides=()):
        recipe = load_recipe(name, overrides)
        return recipe.model_copy(update={"steps": (*recipe.steps[:place], Narrow(keep=keep), *recipe.steps[place:])})

    monkeypatch.setattr(compiling, "load_recipe", load)


def recipe(work, *steps):
    name = f"r{abs(hash(steps)) % 10**8}"
    path = work / f"{name}.yaml"
    path.write_text(f"schema_version: 1\nname: {name}\nsteps:{''.join(chr(10) + s for s in steps) or ' []'}\n")
    return path


def options(work, tmp_path, *steps, data="net.npz", **more):
    return {
        "model": work / "net.pt2",
        "data": str(work / data) if data else None,
        "recipe": recipe(work, *steps),
        "overrides": FAST,
        "output": tmp_path / "bundle",
        "target": "openvino-cpu",
    } | more


def compiled(*arguments, **more):
    return edgeopt.compile(**options(*arguments, **more))


def figures(report, name):
    return [row.figure(name).value for row in report.waterfall.rows if row.figure(name) is not None]


def test_each_float_step_is_measured_beside_fp32_and_what_is_made(work, tmp_path, monkeypatch):
    with_narrow(monkeypatch)
    report = compiled(work, tmp_path, FINETUNE, QUANTIZE).report
    assert {c.id: c.role for c in report.candidates} == {
        "openvino-fp32": "reference",
        "openvino-fp32-narrowed": "stage",
        "openvino-fp32-finetuned": "stage",
        "openvino-int8": "candidate",
    }
    assert all(c.status == "measured" for c in report.candidates)
    assert report.shipped.id in ("openvino-fp32", "openvino-int8")
    assert not any("fp32-narrowed" in line for line in report.headline)  # never one to be shipped
    narrowed, finetuned = report.candidates[1:3]
    assert narrowed.figure("drop_pp").value > 1  # it computes something else than the original, which is no error
    assert finetuned.figure("drop_pp").value < narrowed.figure("drop_pp").value
    assert narrowed.figure("latency_ratio").value
    assert [section.step for section in report.training] == ["finetune"]
    assert "8 hidden units are left." in [event.message for event in report.events]
    assert report.pruned == ()  # that is for a step that says so


def test_each_stage_is_held_against_its_own_outputs(work, tmp_path, monkeypatch):
    with_narrow(monkeypatch)
    report = compiled(work, tmp_path, FINETUNE, QUANTIZE).report
    against = {row.stage: row.against.partition(",")[0] for row in report.parity if "PyTorch" in row.against}
    assert against == {
        "export fp32": "PyTorch FP32",
        "export fp32-narrowed": "PyTorch FP32 (narrowed)",
        "export fp32-finetuned": "PyTorch FP32 (finetuned)",
        "quantize (PyTorch)": "PyTorch FP32 (finetuned)",
        "quantize (ONNX)": "PyTorch FP32 (finetuned)",
        "openvino-fp32": "PyTorch FP32",
        "openvino-fp32-narrowed": "PyTorch FP32 (narrowed)",
        "openvino-fp32-finetuned": "PyTorch FP32 (finetuned)",
        "openvino-int8": "PyTorch FP32 (finetuned)",
    }
    assert all(row.passed for row in report.parity)


def test_the_waterfall_tells_what_each_stage_saved_and_cost(work, tmp_path, monkeypatch):
    with_narrow(monkeypatch)
    report = compiled(work, tmp_path, FINETUNE, QUANTIZE).report
    assert [(row.name, row.step) for row in report.waterfall.rows] == [
        ("FP32", ""),
        ("narrowed", "narrow"),
        ("finetuned", "finetune"),
        ("int8", "quantize"),
    ]
    assert figures(report, "macs") == [128, 64, 64, 64]  # 6 · 16 + 16 · 2, and half of it
    assert figures(report, "parameters") == [146, 74, 74, 74]
    assert len(figures(report, "drop_pp")) == len(figures(report, "wall_s")) == 3
    assert len(figures(report, "latency_p50_ms")) == len(figures(report, "size_mib")) == 4
    texts = [(tmp_path / "bundle" / f"report.{kind}").read_text() for kind in ("md", "html")]
    assert all("Waterfall" in text and "narrowed" in text for text in texts)


def test_a_recipe_may_end_in_a_float_model(work, tmp_path, monkeypatch):
    with_narrow(monkeypatch)
    bundle = compiled(work, tmp_path, FINETUNE, overrides=(*FAST, "objective=size"))
    assert {c.id: c.role for c in bundle.report.candidates} == {
        "openvino-fp32": "reference",
        "openvino-fp32-narrowed": "stage",
        "openvino-fp32-finetuned": "candidate",
    }
    assert bundle.report.shipped.id == "openvino-fp32-finetuned"
    assert bundle.manifest.precision == "fp32"
    assert [row.name for row in bundle.report.waterfall.rows] == ["FP32", "narrowed", "finetuned"]
    assert verify_bundle(tmp_path / "bundle").ok


def test_a_float_step_works_without_data(work, tmp_path, monkeypatch):
    with_narrow(monkeypatch)
    report = compiled(work, tmp_path, data=None).report
    assert [c.id for c in report.candidates] == ["openvino-fp32", "openvino-fp32-narrowed"]
    assert figures(report, "macs") == [128, 64]


def test_a_stage_that_an_earlier_run_made_is_not_made_again(work, tmp_path, monkeypatch):
    with_narrow(monkeypatch)
    monkeypatch.setenv("EDGEOPT_CACHE_DIR", str(tmp_path / "cache"))
    narrow_step.RUNS.clear()
    with monkeypatch.context() as patch:
        patch.setattr(FinetuneStep, "run", staticmethod(_stop))
        with pytest.raises(RecipeError, match="stopped by the test"):
            compiled(work, tmp_path, FINETUNE, QUANTIZE)
    assert narrow_step.RUNS == [None]
    report = compiled(work, tmp_path, FINETUNE, QUANTIZE).report
    assert narrow_step.RUNS == [None]
    assert {row.name: row.cached for row in report.stages}["narrow"]
    assert report.waterfall.rows[1].figure("wall_s").value > 0  # what it took when it was made


def test_a_later_step_is_given_the_model_as_it_came_as_its_teacher(work, tmp_path, monkeypatch):
    with_narrow(monkeypatch, place=1)
    narrow_step.RUNS.clear()
    report = compiled(work, tmp_path, FINETUNE, QUANTIZE, use_cache=False).report
    assert [row.name for row in report.waterfall.rows] == ["FP32", "finetuned", "narrowed", "int8"]
    assert [identify(work / "net.pt2")] == narrow_step.RUNS


def test_a_training_that_the_time_limit_cut_short_is_made_anew_the_next_time(work, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEOPT_CACHE_DIR", str(tmp_path / "cache"))
    runs, whole = [], FinetuneStep.run

    def cut_short(model, config, context):
        result = whole(model, config, context)
        runs.append("finetune")
        early = tuple(section.model_copy(update={"ended": CUT_SHORT}) for section in result.training)
        return replace(result, training=early)

    with monkeypatch.context() as patch:
        patch.setattr(FinetuneStep, "run", staticmethod(cut_short))
        for _ in range(2):
            compiled(work, tmp_path, FINETUNE, QUANTIZE)
            shutil.rmtree(tmp_path / "bundle")
    assert len(runs) == 2
    report = compiled(work, tmp_path, FINETUNE, QUANTIZE).report
    assert {row.name: row.cached for row in report.stages}["finetune"] is False
    assert [section.ended for section in report.training] != [CUT_SHORT]


def _stop(*_):
    raise RecipeError("stopped by the test")


def test_mixed_searches_on_the_last_float_model(work, tmp_path, monkeypatch):
    with_narrow(monkeypatch)
    # On a net this small the clock may find float the fastest, and then there is nothing to choose.
    monkeypatch.setattr("edgeopt.pipeline.mixed.time_groups", lambda *_: Timing(why="not timed in this test"))
    report = compiled(work, tmp_path, MIXED).report
    (section,) = report.mixed
    kib = sum(group.weight_kib for group in section.groups)
    assert kib == pytest.approx((6 * 8 + 8 * 2) * 4 / 1024)  # the narrowed layers' weights
    assert [row.name for row in report.waterfall.rows] == ["FP32", "narrowed", "int8"]
    assert report.waterfall.rows[-1].step == "quantize"


def test_a_target_that_is_not_here_is_told_as_far_as_it_goes(work, tmp_path, monkeypatch):
    with_narrow(monkeypatch)
    report = compiled(work, tmp_path, QUANTIZE, target="jetson").report
    assert {c.id: c.role for c in report.candidates} == {
        "tensorrt-fp32": "reference",
        "tensorrt-fp32-narrowed": "stage",
        "tensorrt-int8": "candidate",
    }
    assert report.shipped.id == "tensorrt-int8"
    assert figures(report, "macs") == [128, 64, 64]
    assert figures(report, "latency_p50_ms") == [None, None, None]
    assert len(figures(report, "drop_pp")) == 2  # judged on a stand-in


def test_without_float_steps_nothing_is_new(work, tmp_path):
    report = compiled(work, tmp_path, QUANTIZE).report
    assert [c.id for c in report.candidates] == ["openvino-fp32", "openvino-int8"]
    assert report.waterfall is None
    assert not any("multiplications" in row.name for row in report.stages)


def test_a_rung_may_have_float_steps_and_measures_what_it_makes_alone(work, tmp_path):
    plain, trained = recipe(work, QUANTIZE), recipe(work, FINETUNE, QUANTIZE)
    ladder = work / "ladder.yaml"
    ladder.write_text(
        f"schema_version: 1\nname: ladder\nsteps: []\nladder: ['{plain}', '{trained}']\nlimits: {{drop_pp: -50}}\n"
    )
    never = [one for one in FAST if "drop_pp" not in one]
    report = compiled(work, tmp_path, recipe=ladder, overrides=never).report
    assert [row.status for row in report.ladder.rungs] == ["missed", "missed"]
    ids = [c.id for c in report.candidates]
    assert ids == ["openvino-fp32", "openvino-int8", f"openvino-int8@{trained.stem}"]
    assert report.waterfall is None


def test_the_dry_run_tells_each_float_step(work, tmp_path, monkeypatch):
    with_narrow(monkeypatch)
    plan = dry_run(CompileOptions(**options(work, tmp_path, FINETUNE, QUANTIZE)))
    own = plan.own_steps()
    assert own[0] == "narrow (keep 8); store, export, parity with its own outputs"
    assert own[1].startswith("train the float model (2 epochs, batch 64, sgd at 0.05, loss task, no teacher, BatchNorm")
    assert own[2].startswith("quantize to int8")
    assert "fp32-narrowed" in own[3]


def test_a_recovery_without_a_train_split_is_refused_before_any_work(work, tmp_path, monkeypatch):
    with_narrow(monkeypatch)
    narrow_step.RUNS.clear()
    with pytest.raises(RecipeError, match="The step finetune needs a train split"):
        compiled(work, tmp_path, FINETUNE, data="untrained.npz")
    assert narrow_step.RUNS == []


def test_what_a_float_step_refuses_it_refuses_before_any_work(work, tmp_path, monkeypatch):
    with_narrow(monkeypatch, keep=0)
    with pytest.raises(RecipeError, match="Nothing would be left"):
        dry_run(CompileOptions(**options(work, tmp_path, QUANTIZE)))
