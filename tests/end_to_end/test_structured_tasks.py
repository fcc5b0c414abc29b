"""Regression, segmentation and detection from a model file and a manifest to a bundle, on real runtimes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from quick import FAST
from structured_nets import write_detection, write_regression, write_segmentation

import edgeopt
from edgeopt.bundle.document import Report
from edgeopt.cli.edge import run
from edgeopt.cli.main import cli
from edgeopt.data.load import load_data
from edgeopt.measure.metrics.registry import METRICS
from edgeopt.measure.metrics.segmentation import MeanIoU
from edgeopt.measure.outputs import collect_targets, judged_output
from edgeopt.model.load import load_model

RECIPES = Path(__file__).parents[2] / "recipes"


def _compile(folder: Path, *more: str) -> Report:
    output = folder / "out"
    data = ["--data", str(folder / "data.yaml"), "-o", str(output)]
    assert run(cli, ["compile", str(folder / "net.pt2"), "--target", "local", *data, *FAST, *more]) == 0
    return Report.model_validate_json((output / "report.json").read_text())


def _int8_sqnr_db(report: Report) -> list[float]:
    found = []
    for candidate in report.candidates:
        assert candidate.status == "measured"
        figure = candidate.figure("output_sqnr_db")
        if candidate.id.endswith("int8"):
            assert figure is not None
            assert figure.value is not None
            found.append(figure.value)
    return found


def test_a_regression_is_quantized_on_both_runtimes(tmp_path: Path) -> None:
    write_regression(tmp_path)
    report = _compile(tmp_path, "-r", "int8-ptq")
    assert report.data is not None
    assert report.data.task == "regression"
    assert len(_int8_sqnr_db(report)) == 2
    assert min(_int8_sqnr_db(report)) > 20, "int8 keeps a net of two linear layers within a tenth of its output"


def test_a_segmentation_is_quantized_and_still_segments(tmp_path: Path) -> None:
    write_segmentation(tmp_path)
    report = _compile(tmp_path, "-r", "int8-ptq", "--set", "objective=size")
    assert report.data is not None
    assert report.data.task == "segmentation"
    assert min(_int8_sqnr_db(report)) > 20
    assert report.data.columns == ("lighting",)
    arrays = np.load(tmp_path / "data.npz")
    masks = np.where(arrays["y"] == 255, -1, arrays["y"].astype(np.int32))
    with edgeopt.load(tmp_path / "out") as model:
        scores = model.predict(arrays["x"])
    metric = MeanIoU()
    assert metric.value(metric.samples(scores, masks)) > 80


def test_a_detection_is_judged_through_its_decoder(tmp_path: Path) -> None:
    write_detection(tmp_path)
    report = _compile(tmp_path, "-r", "fp32")
    assert report.data is not None
    assert report.data.task == "detection"
    model = load_model(tmp_path / "net.pt2")
    data = load_data(tmp_path / "data.yaml", inputs=model.inputs, outputs=model.outputs)
    split, metric = data.splits["test"], METRICS[data.metrics[0]]()
    with edgeopt.load(tmp_path / "out") as bundle:
        grid = bundle.predict(next(split.batches(len(split))).inputs[0])
    detections = judged_output({"grid": grid}, data)
    assert metric.value(metric.samples(detections, collect_targets(split))) == pytest.approx(1, abs=1e-9)


def test_training_on_numbers_lowers_the_squared_error(tmp_path: Path) -> None:
    write_regression(tmp_path, spoilt=True)
    shipped = yaml.safe_load((RECIPES / "int8-qat.yaml").read_text())
    step = shipped["steps"][0]["qat"]
    step["training"] |= {
        "epochs": 4,
        "batch_size": 20,
        "learning_rate": 0.003,
        "distillation": None,
        "schedule": "constant",
    }
    own = {**shipped, "name": "own", "limits": {}, "parity": {"int8_sqnr_db": 0}}  # it is to move away from FP32
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(own))
    report = _compile(tmp_path, "-r", str(tmp_path / "own.yaml"))
    (section,) = report.training
    losses = [figure.value for epoch in section.epochs for figure in epoch.figures if figure.name == "tune_loss"]
    assert len(losses) == 5
    assert section.best_epoch > 0
    assert min(losses) < 0.5 * losses[0]
