"""Every form of model and of data that the README names goes the whole road."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from quick import FAST

import edgeopt
from edgeopt.bundle.document import Report
from edgeopt.cli.edge import run
from edgeopt.cli.main import cli

SOURCE = '''
import numpy as np
import torch


def make_net(hidden: int = 8):
    return torch.nn.Sequential(torch.nn.Linear(4, hidden), torch.nn.ReLU(), torch.nn.Linear(hidden, 3))


class Samples:
    """A map-style dataset: the label is the largest of the first three features."""

    def __init__(self, count, seed):
        self.x = np.random.default_rng(seed).standard_normal((count, 4)).astype(np.float32)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index], int(self.x[index][:3].argmax())


def make_data():
    return {"test": Samples(120, 0), "calibration": Samples(60, 1), "tune": Samples(40, 2)}
'''


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a user's own module in it, and that folder as the current one."""
    (tmp_path / "users_own.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("users_own", None)
    return tmp_path


def _net() -> torch.nn.Module:
    import users_own

    torch.manual_seed(0)
    net = users_own.make_net(hidden=16)
    with torch.no_grad():  # the identity on the first three features, through the ReLU
        for layer in (net[0], net[2]):
            layer.weight.zero_()
            layer.bias.zero_()
        for i in range(3):
            net[0].weight[i, i], net[0].bias[i], net[2].weight[i, i] = 1.0, 4.0, 1.0
    return net.eval()


def _compile(model: str, *more: str, recipe: str = "fp32") -> Report:
    output = Path("bundle")
    arguments = ["compile", model, "-t", "openvino-cpu", "-d", "users_own:make_data", "-r", recipe, "-o", str(output)]
    assert run(cli, [*arguments, *FAST, *more]) == 0
    return Report.model_validate_json((output / "report.json").read_text())


def _accuracy(report: Report) -> float:
    figure = report.shipped.figure("accuracy_top1_pct")
    assert figure is not None
    assert figure.value is not None, figure.reason
    return figure.value


def test_a_state_dict_with_its_factory(workshop: Path) -> None:
    torch.save(_net().state_dict(), "weights.pt")
    factory = ["--factory", "users_own:make_net", "--factory-arg", "hidden=16", "--input", "x:float32[batch,4]"]
    report = _compile("weights.pt", *factory)
    assert (report.model.format, _accuracy(report)) == ("state-dict", 100.0)


def test_a_torchscript_archive(workshop: Path) -> None:
    torch.jit.trace(_net(), torch.zeros(2, 4)).save("script.pt")
    report = _compile("script.pt", "--input", "x:float32[batch,4]")
    assert (report.model.format, _accuracy(report)) == ("torchscript", 100.0)


def test_a_trusted_pickle(workshop: Path) -> None:
    torch.save(_net(), "module.pt")
    report = _compile("module.pt", "--input", "x:float32[batch,4]", "--trust-model")
    assert (report.model.format, _accuracy(report)) == ("pickle", 100.0)


def test_an_exported_archive_named_pt_with_a_static_batch_is_quantized(workshop: Path) -> None:
    torch.export.save(torch.export.export(_net(), (torch.zeros(1, 4),)), "model.pt")
    report = _compile("model.pt", recipe="int8-ptq")
    assert (report.model.format, report.shipped.precision in {"int8", "fp32"}) == ("pt2", True)
    assert _accuracy(report) > 95


def test_a_module_in_memory_from_python(workshop: Path) -> None:
    from edgeopt.core.spec import parse_input

    x = np.random.default_rng(5).standard_normal((200, 4)).astype(np.float32)
    bundle = edgeopt.compile(
        _net(),
        target="openvino-cpu",
        data={"x": x, "y": x[:, :3].argmax(1)},
        inputs=[parse_input("x:float32[batch,4]")],
        overrides=["measure.latency_samples=10", "measure.warmup=1", "measure.block=10"],
        output=workshop / "bundle",
    )
    with edgeopt.load(bundle) as model:
        scores = model.predict(x)
        assert (scores.argmax(1) == x[:, :3].argmax(1)).mean() > 0.95
        with pytest.raises(edgeopt.core.errors.EdgeOptError, match="shape"):
            model.predict(x.T.copy())


def test_a_folder_of_class_folders_with_images(workshop: Path) -> None:
    rng = np.random.default_rng(0)
    for label, colour in enumerate(("red", "green", "blue")):
        for index in range(24):
            pixels = rng.integers(0, 60, (20, 24, 3)).astype(np.uint8)
            pixels[..., label] += 150
            folder = workshop / "photos" / colour
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{index}.png")
    (workshop / "photos.yaml").write_text(
        "schema_version: 1\nname: colours\ntask: classification\nsource:\n  folder: photos\nlabels: {red: 0, green: 1, blue: 2}\n"
        "preprocessing: {mode: RGB, resize: 18, interpolation: bilinear, crop: 16, scale: 1/255, mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25], layout: NCHW}\n"
    )
    net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    program = torch.export.export(net, (torch.zeros(2, 3, 16, 16),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, "colours.pt2")
    assert run(cli, ["compile", "colours.pt2", "-t", "local", "-d", "photos.yaml", "-r", "fp32", "-o", "b", *FAST]) == 0
    report = Report.model_validate_json(Path("b/report.json").read_text())
    assert report.data is not None
    assert {row.name for row in report.data.splits} >= {"calibration", "tune", "test"}
    assert _accuracy(report) == 100.0


class _Fixed(torch.nn.Module):
    """Writes its batch of three down where no export can make it dynamic."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ramp = torch.arange(3, dtype=x.dtype)[:, None] * 0.0
        return x[:, :3] + ramp + x.reshape(12)[:1] * 0.0


def test_a_model_whose_batch_is_fixed_is_measured_at_that_batch(workshop: Path) -> None:
    torch.export.save(torch.export.export(_Fixed(), (torch.zeros(3, 4),)), "fixed.pt2")
    report = _compile("fixed.pt2")
    assert report.model.inputs[0].shape == (3, 4)
    assert any("batch" in event.message for event in report.events)
    assert _accuracy(report) == 100.0
    latency = report.shipped.figure("latency_p50_ms")
    assert latency is not None
    assert latency.conditions["batch"] == 3
