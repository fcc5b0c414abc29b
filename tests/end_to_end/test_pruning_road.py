"""Pruned, recovered, quantized: through the real command line, from recipe to bundle."""

from __future__ import annotations

from pathlib import Path

import pytest
from pruned_net import write_residual
from quick import FAST

from edgeopt.bundle.document import Report
from edgeopt.bundle.load import load_bundle
from edgeopt.cli.edge import run
from edgeopt.cli.main import cli
from edgeopt.graph.io import load_onnx
from edgeopt.pipeline.verify import verify_bundle

PRUNE = "- prune: {importance: l2, macs_ratio: 0.5, round_to: 4}\n"
RECOVER = (
    "- finetune:\n    batchnorm: {freeze_after: 2}\n    training: {epochs: 2, batch_size: 64, optimizer: adamw, "
    "learning_rate: 0.002, warmup_epochs: 0, schedule: cosine, weight_decay: 0, clip_norm: 1.0, loss: task, "
    "distillation: null, precision: 32-true, patience: null}\n"
)
QUANTIZE = "- quantize: {precision: int8, observer: minmax, bias_correction: false, calibration_samples: 64}\n"


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("residual")
    write_residual(folder)
    return folder


def compiled(net: Path, output: Path, *steps: str, target: str = "openvino-cpu", data: bool = True) -> Report:
    recipe = output.with_suffix(".yaml")
    recipe.write_text(f"schema_version: 1\nname: mine\nsteps:\n{''.join(steps)}")
    given = ["--data", str(net / "residual.npz")] if data else []
    where = ["--target", target, "-r", str(recipe), "-o", str(output)]
    assert run(cli, ["compile", str(net / "residual.pt2"), *where, *given, *FAST]) == 0
    return Report.model_validate_json((output / "report.json").read_text())


def figures(report: Report, name: str) -> list[float]:
    assert report.waterfall is not None
    found = [row.figure(name) for row in report.waterfall.rows]
    return [figure.value for figure in found if figure is not None and figure.value is not None]


def test_the_waterfall_goes_from_fp32_over_pruned_and_recovered_to_int8(net: Path, tmp_path: Path) -> None:
    report = compiled(net, tmp_path / "bundle", PRUNE, RECOVER, QUANTIZE)
    assert report.waterfall is not None
    assert [row.name for row in report.waterfall.rows] == ["FP32", "pruned", "finetuned", "int8"]
    whole, *left = figures(report, "macs")
    assert len(set(left)) == 1
    assert left[0] <= 0.5 * whole
    assert len(set(figures(report, "parameters"))) == 2
    pruned, recovered, int8 = figures(report, "drop_pp")
    assert pruned > recovered  # what was cut out was of use, and training brings most of it back
    assert abs(int8 - recovered) < 3
    assert len(figures(report, "latency_p50_ms")) == 4
    assert all(row.passed for row in report.parity)
    assert {c.role for c in report.candidates if "fp32-" in c.id} == {"stage"}
    assert verify_bundle(tmp_path / "bundle").ok


def test_pruned_and_recovered_may_be_the_end(net: Path, tmp_path: Path) -> None:
    report = compiled(net, tmp_path / "bundle", PRUNE, RECOVER, "objective: size\n")
    assert report.shipped.id == "openvino-fp32-finetuned"
    shapes = {tuple(value.shape) for value in load_onnx(tmp_path / "bundle" / "model.onnx").graph.outputs}
    assert [shape[1] for shape in shapes] == [4]  # the model's own outputs never change shape
    assert load_bundle(tmp_path / "bundle").manifest.precision == "fp32"


def test_pruning_alone_needs_no_data(net: Path, tmp_path: Path) -> None:
    report = compiled(net, tmp_path / "bundle", PRUNE, data=False)
    assert [c.id for c in report.candidates] == ["openvino-fp32", "openvino-fp32-pruned"]
    first, second = figures(report, "macs")
    assert second <= 0.5 * first


def test_the_channels_are_those_that_the_target_computes_in(net: Path, tmp_path: Path) -> None:
    report = compiled(
        net, tmp_path / "bundle", PRUNE.replace("round_to: 4", "round_to: auto"), QUANTIZE, target="jetson"
    )
    widths = {
        int(value.shape[0])
        for value in load_onnx(tmp_path / "bundle" / "model.onnx").graph.initializers.values()
        if value.shape is not None and len(value.shape) == 4
    }
    assert widths
    assert widths <= {16, 32}
    first, second, _ = figures(report, "macs")
    assert second <= 0.5 * first
    assert report.shipped.id == "tensorrt-int8"
    assert figures(report, "latency_p50_ms") == []
    assert len(figures(report, "drop_pp")) == 2


def test_prune_int8_goes_from_recipe_to_bundle(net: Path, tmp_path: Path) -> None:
    output = tmp_path / "bundle"
    where = ["--target", "openvino-cpu", "-r", "prune-int8", "-o", str(output), "--data", str(net / "residual.npz")]
    shorter = ["steps.distil.training.epochs=3", "steps.distil.batchnorm.freeze_after=2", "steps.qat.training.epochs=1"]
    shorter.append("limits.drop_pp=null")  # so little training is not to be judged
    more = [part for one in shorter for part in ("--set", one)]
    assert run(cli, ["compile", str(net / "residual.pt2"), *where, *FAST, *more]) in (
        0,
        4,
        5,
    )  # a net this small: no limits
    report = Report.model_validate_json((output / "report.json").read_text())
    assert report.waterfall is not None
    assert [(row.name, row.step) for row in report.waterfall.rows] == [
        ("FP32", ""),
        ("pruned", "prune"),
        ("distilled", "distil"),
        ("int8", "qat"),
    ]
    assert [section.step for section in report.training] == ["distil", "qat"]
    assert all(row.passed for row in report.parity)
    pruned, distilled, int8 = figures(report, "drop_pp")
    assert pruned > distilled
    assert int8 < 5
