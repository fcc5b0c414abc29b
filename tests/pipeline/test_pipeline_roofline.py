"""A bundle's roofline: its own inputs, its own nodes, the machine's peaks."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from sample_bundle import CHANNELS, CLASSES, HEIGHT, WIDTH, fill_bundle, sample_bundle, sample_manifest

from edgeopt.bundle.layout import RECIPE, write_yaml
from edgeopt.bundle.load import load_bundle
from edgeopt.bundle.roofline import MachinePeaks
from edgeopt.bundle.write import write_bundle
from edgeopt.cli.main import cli
from edgeopt.core.errors import BundleError, DeviceError
from edgeopt.core.measurement import Measurement
from edgeopt.devices.local import LocalDevice
from edgeopt.measure import roofline as room
from edgeopt.pipeline.cache import StageCache
from edgeopt.pipeline.context import RunContext
from edgeopt.pipeline.roofline import record_roofline, roofline_of_bundle
from edgeopt.recipes.schema import Measure, Recipe

pytest.importorskip("onnxruntime", reason="pip install 'edgeopt[onnxruntime]'")


@pytest.fixture(autouse=True)
def fixed_peaks(monkeypatch):
    def peak(name, unit):
        return Measurement(name=name, value=100.0, unit=unit, device="board")

    peaks = MachinePeaks(
        int8=peak("peak_int8_gops", "GOPS"),
        float32=peak("peak_float32_gops", "GOPS"),
        bandwidth=peak("peak_bandwidth_gb_s", "GB/s"),
    )
    monkeypatch.setattr(room, "measure_peaks", lambda *_, **__: peaks)


@pytest.fixture
def linear(tmp_path):
    def fill(folder):
        fill_bundle(folder)
        quick = Measure(threads=1, warmup=1, warmup_within_pct=None)
        write_yaml(folder / RECIPE, Recipe(schema_version=1, name="fp32", steps=(), measure=quick))

    return write_bundle(tmp_path / "linear", fill, lambda _: sample_manifest())


def test_each_layer_has_its_node_and_its_multiplications(linear):
    found = roofline_of_bundle(linear, threads=1)
    (product,) = [row for row in found.rows if row.macs]
    assert product.macs == CHANNELS * HEIGHT * WIDTH * CLASSES
    assert product.runs_in == "float32"
    # One sample in, the weight, one out (and the bias among the inputs or not), in float32.
    inputs = CHANNELS * HEIGHT * WIDTH
    assert 0 <= product.moved_bytes - 4 * (inputs + inputs * CLASSES + CLASSES) <= 4 * CLASSES
    assert found.whole.macs == product.macs
    assert found.conditions["runtime"] == "onnxruntime"


def test_an_engine_that_is_not_built_is_refused(tmp_path):
    engine = {"status": "not_built", "entry": "model.plan", "next_command": "python3 build.py"}
    with pytest.raises(BundleError, match="not built yet"):
        roofline_of_bundle(sample_bundle(tmp_path / "linear", engine=engine))


def test_the_command_prints_a_table_json_and_a_picture(linear, tmp_path):
    bundle = str(linear)
    picture = tmp_path / "roof.svg"
    shown = CliRunner().invoke(cli, ["bench", bundle, "--roofline", "-o", str(picture)])
    assert "reached, %" in shown.output
    assert "whole" in shown.output
    assert picture.read_text(encoding="utf-8").startswith("<svg")
    told = CliRunner().invoke(cli, ["bench", bundle, "--roofline", "--json"])
    assert json.loads(told.stdout)["rows"]


def test_layers_that_cannot_be_timed_are_a_note_in_the_report(linear, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise DeviceError("The layers cannot be timed one by one.", got="no profiler")

    monkeypatch.setattr(room, "measure_roofline", refuse)
    context = RunContext(cache=StageCache(tmp_path / "cache"), host="board")
    made = record_roofline(context, load_bundle(linear), LocalDevice())
    assert made.report.roofline is None
    (note,) = [event for event in made.report.events if event.stage == "roofline"]
    assert note.message.startswith("There is no roofline: The layers cannot be timed one by one.")


def test_the_peaks_of_a_machine_are_measured_once(linear, tmp_path, monkeypatch):
    times = []
    peaks = room.measure_peaks()
    monkeypatch.setattr("edgeopt.measure.peaks.measure_peaks", lambda *_, **__: times.append(1) or peaks)
    for _ in range(2):
        context = RunContext(cache=StageCache(tmp_path / "cache"), host="board")
        made = record_roofline(context, load_bundle(linear), LocalDevice())
        assert made.report.roofline.peaks == peaks
        assert made.directory == linear
    assert len(times) == 1
