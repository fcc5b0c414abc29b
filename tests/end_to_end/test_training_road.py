"""Quantization-aware training through the real command line: killed, interrupted, resumed, reported."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from quick import FAST

from edgeopt.bundle.document import Report
from edgeopt.cli.edge import run
from edgeopt.cli.main import cli
from edgeopt.core.fingerprint import hash_file

EDGEOPT = [sys.executable, "-c", "from edgeopt.cli.main import main; main()"]


@pytest.fixture(scope="module")
def data(mlp: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first user's data, with a train split."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2000, 20)).astype(np.float32)
    path = tmp_path_factory.mktemp("train") / "train.npz"
    with np.load(mlp / "mlp.npz") as given:
        np.savez(path, **dict(given), x_train=x, y_train=(x.sum(1) > 0).astype(np.int64))
    return path


def arguments(mlp: Path, data: Path, output: Path, *more: str) -> list[str]:
    where = ["--target", "openvino-cpu", "--data", str(data), "-o", str(output)]
    return ["compile", str(mlp / "mlp.pt2"), *where, *FAST, *more]


def test_int8_qat_goes_from_recipe_to_bundle(mlp: Path, data: Path, tmp_path: Path) -> None:
    more = ["-r", "int8-qat", "--set", "steps.qat.training.epochs=2"]
    assert run(cli, arguments(mlp, data, tmp_path / "bundle", *more)) == 0
    report = Report.model_validate_json((tmp_path / "bundle" / "report.json").read_text())
    (section,) = report.training
    assert (section.step, section.samples, len(section.epochs)) == ("qat", 2000, 3)
    assert {row.precision for row in report.layers} == {"int8"}
    assert all(row.passed for row in report.parity)
    assert "## Training" in (tmp_path / "bundle" / "report.md").read_text()
    assert "Training: qat" in (tmp_path / "bundle" / "report.html").read_text()
    assert not list(Path(os.environ["EDGEOPT_CACHE_DIR"]).glob("unfinished/*"))


def finetuned(folder: Path) -> str:
    """A recipe that trains the float model, then quantizes it."""
    recipe = folder / "mine.yaml"
    recipe.write_text(
        "schema_version: 1\nname: mine\nsteps:\n"
        "- finetune:\n    batchnorm: frozen\n    training: {epochs: 1, batch_size: 64, optimizer: sgd, "
        "learning_rate: 0.01, warmup_epochs: 0, schedule: constant, weight_decay: 0, clip_norm: null, loss: task, "
        "distillation: null, precision: 32-true, patience: null}\n"
        "- quantize: {precision: int8, observer: minmax, bias_correction: false}\n"
    )
    return str(recipe)


def test_finetune_trains_the_float_model_that_is_then_quantized(mlp: Path, data: Path, tmp_path: Path) -> None:
    assert run(cli, arguments(mlp, data, tmp_path / "bundle", "-r", finetuned(tmp_path))) == 0
    report = Report.model_validate_json((tmp_path / "bundle" / "report.json").read_text())
    assert [section.step for section in report.training] == ["finetune"]
    assert report.waterfall is not None
    assert [row.name for row in report.waterfall.rows] == ["FP32", "finetuned", "int8"]
    assert not list(Path(os.environ["EDGEOPT_CACHE_DIR"]).glob("unfinished/*"))
    assert {row.precision for row in report.layers} == {"int8"}


@pytest.mark.long
@pytest.mark.parametrize("step", ["qat", "finetune"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=lambda how: how.name)
def test_a_stopped_training_ends_in_the_same_graph(
    how: signal.Signals, step: str, mlp: Path, data: Path, tmp_path: Path
) -> None:
    recipe = "int8-qat" if step == "qat" else finetuned(tmp_path)
    more = ["-r", recipe, "--set", f"steps.{step}.training.epochs=30", "--set", f"steps.{step}.training.patience=null"]

    def start(cache: str, output: str) -> subprocess.Popen[str]:
        environment = os.environ | {"EDGEOPT_CACHE_DIR": str(tmp_path / cache), "OMP_NUM_THREADS": "1"}
        command = [*EDGEOPT, *arguments(mlp, data, tmp_path / output, *more)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    whole = start("whole", "whole-bundle")
    _, errors = whole.communicate()
    assert whole.returncode == 0, errors
    stopped = start("stopped", "bundle")
    deadline = time.monotonic() + 300
    while not list((tmp_path / "stopped").glob("unfinished/*/0/checkpoint.pt")):
        assert stopped.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    stopped.send_signal(how)
    stopped.communicate()
    assert stopped.returncode == (-how if how == signal.SIGKILL else 130)
    assert not (tmp_path / "bundle").exists()
    assert list((tmp_path / "stopped").glob("unfinished/*/0/checkpoint.pt"))
    again = start("stopped", "bundle")
    _, errors = again.communicate()
    assert again.returncode == 0, errors
    training = [json.loads((tmp_path / b / "report.json").read_text())["training"] for b in ("bundle", "whole-bundle")]
    assert training[0] == training[1]
    # The graphs that were made, not the bundles': which of them is shipped is decided by times, and these are noisy.
    made = [
        [hash_file(graph) for graph in (tmp_path / cache).glob("quantize/*/model.onnx")]
        for cache in ("stopped", "whole")
    ]
    assert made[0] == made[1]
    assert len(made[0]) == 1
    assert not list((tmp_path / "stopped").glob("unfinished/*"))


def test_sparse_int8_goes_from_recipe_to_bundle_and_says_what_uses_it(mlp: Path, data: Path, tmp_path: Path) -> None:
    steps = [f"steps.{step}.training.epochs=2" for step in ("distil", "qat")]
    more = ["-r", "sparse-int8", *(part for step in steps for part in ("--set", step))]
    more += ["--set", "steps.distil.batchnorm=frozen", "--set", "steps.distil.features=['0', '2']"]
    more += ["--set", "steps.distil.feature_weight=1.0", "--set", "limits.drop_pp=null"]
    assert run(cli, arguments(mlp, data, tmp_path / "cpu", *more)) == 0
    report = Report.model_validate_json((tmp_path / "cpu" / "report.json").read_text())
    assert report.training[0].step == "distil"
    assert sum("; weight 2:4 sparse" in row.reason for row in report.layers) == len(report.layers)
    assert [row.name for row in report.waterfall.rows] == ["FP32", "sparse", "distilled", "int8"]
    said = [event.message for candidate in report.candidates for event in candidate.events]
    assert any("layers are 2:4 sparse; not used: no faster on openvino" in message for message in said)
    assert any("2:4 sparse, 100.0 % of the multiplications" in event.message for event in report.events)

    onto = [part if part != "openvino-cpu" else "jetson" for part in arguments(mlp, data, tmp_path / "gpu", *more)]
    run(cli, onto)
    build = json.loads((tmp_path / "gpu" / "engine" / "build.json").read_text())
    assert build["sparse_weights"] is True
    report = Report.model_validate_json((tmp_path / "gpu" / "report.json").read_text())
    said = [event.message for candidate in report.candidates for event in candidate.events]
    assert any("sparse tensor cores (compute capability 8.7, builder flag SPARSE_WEIGHTS set)" in one for one in said)
