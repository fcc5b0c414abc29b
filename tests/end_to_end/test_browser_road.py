"""From a model file to a bundle for a web page, measured in a real browser; and that bundle measured again."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from quick import FAST

from edgeopt.bundle.document import Report
from edgeopt.cli.edge import run
from edgeopt.cli.main import cli

sys.path.append(str(Path(__file__).parents[1] / "devices"))

from browser_here import demand_browser

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def bundle(mlp: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    demand_browser()
    output = tmp_path_factory.mktemp("page") / "bundle"
    given = [str(mlp / "mlp.pt2"), "--data", str(mlp / "mlp.npz"), "-o", str(output)]
    assert run(cli, ["compile", *given, "-t", "browser", "-r", "int8-ptq", *FAST]) in (0, 4)
    return output


def test_what_a_page_runs_is_measured_in_a_browser_without_being_told_to(bundle: Path) -> None:
    report = Report.model_validate_json((bundle / "report.json").read_text())
    assert report.target.name == "browser-wasm"
    assert report.target.measured_here
    assert [(c.id, c.status) for c in report.candidates] == [
        ("onnxruntime-fp32", "measured"),
        ("onnxruntime-int8", "measured"),
    ]
    int8 = report.candidates[1]
    assert int8.dialect == "ort-wasm"
    for name in ("accuracy_top1_pct", "drop_pp", "latency_p50_ms", "latency_ratio", "peak_memory_mib"):
        figure = int8.figure(name)
        assert figure is not None, name
        assert figure.value is not None, figure.reason
        assert " headless on " in str(figure.device)
    assert any("int8 weights" in event.message for event in int8.events)


def test_bench_and_eval_measure_it_again(bundle: Path, mlp: Path, tmp_path: Path, capfd) -> None:
    picture = tmp_path / "page.png"
    assert (
        run(
            cli,
            ["bench", str(bundle), "--device", "browser", "--samples", "20", "--screenshot", str(picture), "--json"],
        )
        == 0
    )
    rows = {row["name"]: row for row in json.loads(capfd.readouterr().out)}
    assert rows["latency_p50_ms"]["value"] > 0
    overhead = rows["harness_overhead_us"]  # a page's clock has steps of 5 µs, and nothing takes less than one
    assert overhead["value"] is None or overhead["value"] >= 2.5
    assert overhead["value"] or "a step of the device's clock" in overhead["reason"]
    assert rows["latency_p50_ms"]["conditions"]["runtime_version"] != rows["latency_p50_ms"]["conditions"]["runtime"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert run(cli, ["eval", str(bundle), "--device", "browser", "--data", str(mlp / "mlp.npz"), "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capfd.readouterr().out)}
    assert rows["accuracy_top1_pct"]["value"] > 50
