"""The benchmarks' scripts start, and their nets export; what they measure is theirs."""

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sample_report import build_sample_report

from edgeopt.core.measurement import Interval, Measurement, not_measured

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SHAPES = {
    **dict.fromkeys(("resnet20", "mobilenetv2", "prelu"), (1, 28, 28)),
    **dict.fromkeys(("vit", "mlp"), (3, 32, 32)),
    **dict.fromkeys(("cnn1d", "gru"), (13, 48)),
    "longconv": (13, 128),
}


@pytest.fixture
def script(monkeypatch):
    """Import a script by its path below benchmarks/, as if its folder were the working directory."""
    before = set(sys.modules)

    def load(name):
        path = BENCHMARKS / name
        monkeypatch.syspath_prepend(str(path.parent))
        return importlib.import_module(path.stem)

    yield load
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.mark.parametrize("name", ["zoo/train.py", "quality.py", "dialects.py"])
def test_a_benchmark_says_how_it_is_used(name):
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / name), "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


@pytest.mark.filterwarnings("ignore:The tensor attributes self.gru:UserWarning")
@pytest.mark.parametrize("name", SHAPES)
def test_a_net_of_the_zoo_exports_with_a_dynamic_batch(script, tmp_path, name):
    nets, train = script("zoo/nets.py").NETS, script("zoo/train.py")
    assert set(nets) == set(train.PLANS) == set(SHAPES)
    torch.manual_seed(0)
    model, path = nets[name]().eval(), tmp_path / "model.pt2"
    train.export(model, torch.randn(64, *SHAPES[name]), path)
    x = torch.randn(3, *SHAPES[name])
    torch.testing.assert_close(torch.export.load(path).module()(x), model(x), rtol=1e-4, atol=1e-5)


def test_training_twice_gives_the_same_weights(script):
    nets, train = script("zoo/nets.py").NETS, script("zoo/train.py")
    random = np.random.default_rng(0)
    x, y = random.standard_normal((48, 13, 48)).astype(np.float32), random.integers(0, 10, 48)

    def weights():
        torch.manual_seed(0)
        model = train.train(nets["cnn1d"](), x, y, train.Plan(data="spoken-padded", epochs=2, batch=16))
        return torch.cat([p.flatten() for p in model.parameters()])

    assert torch.equal(weights(), weights())


def test_the_digits_splits_share_no_image_and_fit_the_nets(script):
    parts = script("zoo/data.py").digits()
    assert {k: len(v) for k, v in parts.items() if k[0] == "x"} == {
        "x": 2000, "x_calibration": 1024, "x_tune": 2048, "x_train": 14608
    }  # fmt: skip
    assert all(v.shape[1:] == (3, 32, 32) and v.dtype == np.float32 for k, v in parts.items() if k[0] == "x")


def test_a_missing_net_is_answered_with_the_known_ones(script, tmp_path):
    (tmp_path / "mlp").mkdir()
    (tmp_path / "mlp/model.pt2").touch()
    (tmp_path / "mlp/data.npz").touch()
    find_nets = script("zoo_folder.py").find_nets
    assert [net.name for net in find_nets(tmp_path, [])] == ["mlp"]
    with pytest.raises(SystemExit, match=r"no net vit \(there: mlp\)"):
        find_nets(tmp_path, ["vit"])


def figure(value, low=None, high=None):
    interval = None if low is None else Interval(low=low, high=high, method="test")
    return Measurement(name="drop_pp", value=value, unit="pp", interval=interval)


@pytest.mark.parametrize(
    ("measured", "at_most", "limit", "verdict", "holds"),
    [
        (figure(0.1 + 0.2, 0.1, 0.29), True, 0.3, "PASS**", True),  # on its limit, but for float64
        (figure(0.2, 0.1, 0.4), True, 0.3, "PASS~**", True),
        (figure(0.4, 0.1, 0.5), True, 0.3, "FAIL~**", False),
        (figure(24.9), False, 25, "FAIL**", False),
        (figure(25.1), False, 25, "PASS**", True),
        (figure(25.1), False, None, "25.10", None),
        (None, True, 0.3, "–", False),
        (not_measured("output_sqnr_db", "dB", "equal, bit by bit: no noise"), False, 35, "∞", True),
    ],
)
def test_a_figure_is_judged_by_itself_and_its_interval_shown(script, measured, at_most, limit, verdict, holds):
    cell = script("quality.py").judged(measured, limit, at_most=at_most, digits=2)
    assert cell.text.endswith(verdict)
    assert cell.holds is holds


def test_the_table_has_a_row_per_engine_with_the_reports_figures(script):
    quality, net = script("quality.py"), script("zoo_folder.py").Net(name="resnet20", model=Path(), data=Path())
    report = build_sample_report()
    rows = list(quality.rows_of(net, "int8-ptq", report))
    candidates = [c for c in report.candidates if c.role == "candidate"]
    assert [row.names[2] for row in rows] == [f"{c.runtime} {c.runtime_version}, {c.dialect}" for c in candidates]
    for row, candidate in zip(rows, candidates, strict=True):
        if candidate.status == "measured":
            assert f"{candidate.figure('drop_pp').value:.2f}" in row.cells[1].text
            assert "≤ 0.3" in row.cells[1].text
        else:
            assert candidate.reason in row.cells[0].text


@pytest.mark.parametrize(
    ("recipe", "kind"),
    [
        ("int8-ptq", "ptq"),
        ("int8-qat", "qat"),
        ("w4a8-qat", "w4-qat"),
        ("w4a8", "w4"),
        ("auto", "auto"),
        ("fp16", "float"),
    ],
)
def test_a_recipes_name_says_which_limits_hold(script, recipe, kind):
    assert script("wanted.py").kind_of(recipe) == kind
