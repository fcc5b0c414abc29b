"""An analysis says what each layer costs and what removing channels would; what it cannot say it gives a reason for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgeopt.bundle.analysis import Analysis
from edgeopt.core.errors import DataError, EdgeOptError, ModelError
from edgeopt.core.spec import TensorSpec
from edgeopt.pipeline.analyze import analyze_model
from edgeopt.pipeline.options import CompileOptions
from edgeopt.report.analysis import summary_lines

SPEC = TensorSpec(name="x", dtype="float32", shape=("batch", 3, 8, 8))


class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, 12, 3, padding=1)
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        return self.head(torch.relu(self.second(torch.relu(self.norm(self.first(x))))).mean((2, 3)))


def make(width=8):
    torch.manual_seed(0)
    return Net(width).eval()


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEOPT_CACHE_DIR", str(tmp_path / "cache"))


def arrays(count=60, **more):
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(count, 3, 8, 8)).astype(np.float32), np.arange(count) % 4
    return {"x": x, "y": y, **more}


@pytest.fixture
def data(tmp_path):
    np.savez(tmp_path / "data.npz", **arrays())
    return tmp_path / "data.npz"


def options(model, data=None, inputs=(), **more):
    return CompileOptions(model=model, target="local", data=data, inputs=inputs, **more)


def of_module(data=None, net=None, **more):
    return analyze_model(options(net or make(), data, [SPEC]), **more)


def forms(folder: Path):
    """The same net in every form that has a program."""
    net = make()
    torch.save(net.state_dict(), folder / "weights.pt")
    torch.jit.trace(net, torch.zeros(2, 3, 8, 8)).save(folder / "script.pt")
    torch.save(net, folder / "pickle.pt")
    dims = ({0: torch.export.Dim("batch")},)
    torch.export.save(torch.export.export(net, (torch.zeros(2, 3, 8, 8),), dynamic_shapes=dims), folder / "net.pt2")
    return {
        "state dict": options(folder / "weights.pt", inputs=[SPEC], factory=f"{__name__}:make"),
        "torchscript": options(folder / "script.pt", inputs=[SPEC]),
        "pickle": options(folder / "pickle.pt", inputs=[SPEC], trust_model=True),
        "archive": options(folder / "net.pt2"),
    }


def test_every_form_with_a_program_costs_the_same_and_has_the_same_layers(tmp_path):
    found = {name: analyze_model(given) for name, given in forms(tmp_path).items()}
    macs = 64 * 8 * 27 + 64 * 12 * 72 + 48
    assert {name: one.totals.macs for name, one in found.items()} == dict.fromkeys(found, macs)
    layers = {name: tuple(layer.name for layer in one.layers if layer.macs) for name, one in found.items()}
    assert layers == dict.fromkeys(found, ("first", "second", "head"))
    # the second ReLU reads 12 maps and makes 12
    assert {one.memory.peak_bytes for one in found.values()} == {24 * 64 * 4}
    assert {tuple(group.name for group in one.pruning.groups) for one in found.values()} == {("first", "second")}


def test_without_data_it_says_why_nothing_was_measured():
    found = of_module()
    assert found.pruning.split is None
    assert found.pruning.reason == "no data was given (--data)"
    assert [(group.name, group.units, group.figures) for group in found.pruning.groups] == [
        ("first", 8, ()),
        ("second", 12, ()),
    ]
    assert [pinned.name for pinned in found.pruning.pinned] == ["head"]


def test_every_group_is_scored_at_every_ratio_on_the_tuning_split(data):
    found = of_module(data)
    assert found.pruning.split == "6 samples of the tune split"
    assert found.pruning.reason is None
    for group in found.pruning.groups:
        figures = [m for m in group.figures if m.name == "divergence"]
        assert [m.conditions["ratio"] for m in figures] == [0.25, 0.5, 0.75]
        assert [m.conditions["removed"] for m in figures] == [group.units // 4, group.units // 2, 3 * group.units // 4]
        assert all(m.value > 0 and m.n == 6 for m in figures)
        assert {"agreement_pct", "drop_pp", "loss"} <= {m.name for m in group.figures}
    assert found.events == ()


def test_the_document_reads_itself_back(data):
    found = of_module(data)
    assert Analysis.model_validate_json(found.model_dump_json()) == found
    assert found.schema_version == 1


def test_data_without_a_tuning_split_is_said(tmp_path):
    np.savez(tmp_path / "data.npz", **arrays())
    manifest = tmp_path / "set.yaml"
    manifest.write_text(
        "schema_version: 1\nname: odd\ntask: classification\nsource: {npz: data.npz}\nsplits: {tune: 0}\n"
    )
    found = of_module(manifest)
    assert found.pruning.split.endswith("of the calibration split")
    assert [event.kind for event in found.events] == ["warning"]
    assert "no tuning split" in found.events[0].message


@pytest.mark.parametrize("importance", ["l2", "taylor"])
def test_what_is_judged_on_the_tuning_split_is_learnt_from_another_one_and_the_test_split_is_never_read(
    data, monkeypatch, importance
):
    from edgeopt.compress.calibrate import Feed

    seen, of = [], Feed.of
    monkeypatch.setattr(
        Feed, "of", lambda model, program, split, *rest: seen.append(split.name) or of(model, program, split, *rest)
    )
    of_module(data, importance=importance)
    assert seen == (["tune", "calibration"] if importance == "taylor" else ["tune"])


def test_a_stopped_run_goes_on_where_it_was(data, monkeypatch):
    from edgeopt.compress.removal import RemovalJudge

    done, removals = [], RemovalJudge.removals

    def stops(self, group, ratios):
        if done:
            raise KeyboardInterrupt
        done.append(group.name)
        return removals(self, group, ratios)

    monkeypatch.setattr(RemovalJudge, "removals", stops)
    with pytest.raises(KeyboardInterrupt):
        of_module(data)
    again = []
    monkeypatch.setattr(RemovalJudge, "removals", lambda *a: again.append(a[1].name) or removals(*a))
    whole = of_module(data)
    assert (done, again) == (["first"], ["second"])
    assert all(group.figures for group in whole.pruning.groups)
    again.clear()
    assert of_module(data) == whole
    assert again == []


def test_a_model_of_which_nothing_can_be_removed_is_said(data):
    torch.manual_seed(0)
    spec = TensorSpec(name="input", dtype="float32", shape=("batch", 3, 8, 8))
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 4)).eval()
    found = analyze_model(options(net, data, [spec]))
    assert found.pruning.groups == ()
    assert found.pruning.reason == "the model has no group of which anything could be removed"


def test_a_graph_whose_channels_cannot_be_followed_still_has_its_layers(data, monkeypatch):
    whole = of_module(data)

    def lost(_):
        raise KeyError("conv_9d")

    monkeypatch.setattr("edgeopt.compress.removal.trace_channels", lost)
    found = of_module(data)
    assert (found.layers, found.totals, found.memory) == (whole.layers, whole.totals, whole.memory)
    assert found.pruning.groups == ()
    assert "(KeyError: 'conv_9d')" in found.pruning.reason
    (event,) = [event for event in found.events if event.kind == "warning" and "removed" in event.message]
    assert "KeyError: 'conv_9d'" in event.message
    assert "No group that could be removed is known: channels could not be followed" in summary_lines(found)[-1]


def test_open_sizes_are_said_and_can_be_given():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv1d(4, 8, 3, padding=1), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(torch.relu(self.conv(x)).transpose(1, 2))

    spec = TensorSpec(name="x", dtype="float32", shape=("batch", 4, "tokens"))
    given = options(Tokens().eval(), inputs=[spec])
    assumed = analyze_model(given)
    assert [event.kind for event in assumed.events if "tokens = " in event.message] == ["note"]
    chosen = analyze_model(given, sizes={"tokens": 10})
    assert chosen.sizes == {"batch": 1, "tokens": 10}
    assert not [event for event in chosen.events if "tokens" in event.message]
    with pytest.raises(ModelError, match="no open dimension of that name"):
        analyze_model(given, sizes={"width": 10})


def test_an_onnx_file_has_layers_and_says_what_it_cannot(tmp_path):
    program = torch.onnx.export(make(), (torch.zeros(1, 3, 8, 8),), dynamo=True)
    program.save(tmp_path / "net.onnx")
    found = analyze_model(options(tmp_path / "net.onnx"))
    assert found.totals.macs == 64 * 8 * 27 + 64 * 12 * 72 + 48
    assert (found.memory, found.pruning) == (None, None)
    assert [event.kind for event in found.events] == ["warning"]
    assert "no PyTorch program" in found.events[0].message
    with pytest.raises(EdgeOptError, match="Sizes are chosen for PyTorch programs only"):
        analyze_model(options(tmp_path / "net.onnx"), sizes={"batch": 1})


@pytest.mark.parametrize("ratios", [(), (0.0,), (0.5, 1.0), (25,)])
def test_a_ratio_outside_of_zero_to_one_is_refused(ratios):
    with pytest.raises(EdgeOptError, match=r"share of a group's units.*in \(0, 1\)"):
        of_module(ratios=ratios)


def test_data_that_does_not_fit_is_refused(tmp_path):
    np.savez(tmp_path / "data.npz", x=np.zeros((40, 2), np.float32), y=np.zeros(40, np.int64))
    with pytest.raises(DataError):
        of_module(tmp_path / "data.npz")
