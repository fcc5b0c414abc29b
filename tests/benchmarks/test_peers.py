"""The comparison with peers: who counts as best, and how a peer's failure is told."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgeopt.core.engine import Engine
from edgeopt.targets.host import detect_host

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
TOOLS = BENCHMARKS / "peers" / "tools"


@pytest.fixture(autouse=True)
def _on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def row(tool, latency_ms, *, wrong=0, agreement=100.0, own=False, count=1000):
    from peers.engines import Entry
    from peers.evaluation import Row

    from edgeopt.core.measurement import Measurement
    from edgeopt.measure.latency import EngineFigures

    rng = np.random.default_rng(len(tool))
    blocks = latency_ms * (1 + 0.01 * rng.standard_normal((20, 20)))
    median = Measurement(name="latency_p50_ms", value=float(np.median(blocks)), unit="ms", n=blocks.size)
    entry = Entry(tool=tool, runtime="openvino", own=own, engine=None, artifact=None if own else object())
    return Row(
        entry=entry,
        right=np.arange(count) >= wrong,
        agreement_pct=agreement,
        figures=EngineFigures(measurements=(median,), blocks_ms=blocks),
    )


def judged(*rows, ratios=()):
    from peers.verdict import Rematch, judge, pair

    if not ratios:
        return judge(rows, "openvino")
    own, best = pair(rows, "openvino")
    return judge(rows, "openvino", {"openvino": Rematch(own=own.entry.id, peer=best.entry.id, ratios=ratios)})


def test_the_fastest_peer_of_equal_accuracy_is_the_one_that_counts():
    verdict = judged(row("edgeopt", 1.0, own=True), row("slow", 3.0), row("quick", 1.5))
    assert verdict.status == "met"
    assert "best peer quick" in verdict.text


def test_a_faster_peer_of_equal_accuracy_means_missed():
    assert judged(row("edgeopt", 1.0, own=True), row("quick", 0.8)).status == "missed"


def test_a_ratio_whose_interval_holds_one_is_even():
    assert judged(row("edgeopt", 1.0, own=True), row("as quick", 1.0005)).status == "even"


def test_a_second_timing_decides_between_edgeopt_and_the_peer_that_the_first_one_chose():
    rows = (row("edgeopt", 1.0, own=True), row("lucky", 0.98), row("slow", 3.0))
    even = judged(*rows, ratios=tuple(0.99 + 0.002 * i for i in range(10)))
    assert (even.status, "best peer lucky" in even.text) == ("even", True)
    assert "ratio 0.999 [0.99, 1.01] (n=10 pairs of processes)" in even.text
    assert judged(*rows, ratios=(1.02,) * 10).status == "missed"
    assert judged(*rows, ratios=(0.97,) * 10).status == "met"
    assert judged(*rows, ratios=(0.97, 0.98)).status == "even"  # two pairs say nothing


def test_a_faster_peer_that_is_less_accurate_does_not_count():
    assert judged(row("edgeopt", 1.0, own=True), row("rash", 0.5, wrong=50), row("slow", 2.0)).status == "met"


def test_a_faster_peer_whose_predictions_left_fp32_does_not_count():
    assert judged(row("edgeopt", 1.0, own=True), row("rash", 0.5, agreement=90.0), row("slow", 2.0)).status == "met"


def test_being_faster_but_less_accurate_means_missed():
    verdict = judged(row("edgeopt", 1.0, own=True, wrong=50), row("slow", 2.0))
    assert verdict.status == "missed"
    assert "less accurate: accuracy -5.00 pp" in verdict.text


def test_more_accurate_than_every_peer_is_met():
    verdict = judged(row("edgeopt", 1.0, own=True), row("rash", 0.5, wrong=50))
    assert verdict.status == "met"
    assert "more accurate than every peer" in verdict.text


def test_without_a_peer_nothing_is_compared():
    assert judged(row("edgeopt", 1.0, own=True)).status == "not compared"


def test_without_edgeopt_the_comparison_is_missed():
    assert judged(row("slow", 2.0)).status == "missed"


def serve(tmp_path, body):
    """Run a peer's script whose variant ``v`` is ``body``; returns its report."""
    script = tmp_path / "run.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(TOOLS)!r})\nfrom exchange import serve\n"
        f"def v(job):\n    {body}\nserve({{'v': v}}, ['numpy'])\n"
    )
    np.savez(tmp_path / "c.npz", x=np.zeros((3, 2), np.float32))
    files = {"model": "m.onnx", "calibration": "c.npz", "out": "out.onnx", "report": "r.json"}
    command = [sys.executable, str(script), "--variant", "v"]
    command += [part for name, file in files.items() for part in (f"--{name}", str(tmp_path / file))]
    subprocess.run(command, check=True, capture_output=True)
    return json.loads((tmp_path / "r.json").read_text())


def test_a_peer_reports_its_own_seconds_its_samples_and_versions(tmp_path):
    report = serve(tmp_path, "with job.timing(): job.out.write_text(str(len(list(job.feeds()))))")
    assert report["seconds"] > 0
    assert (report["samples"], report["error"], report["versions"]["numpy"]) == (3, None, np.__version__)
    assert (tmp_path / "out.onnx").read_text() == "3"


def test_a_peer_that_raises_is_told_in_its_own_words(tmp_path):
    assert serve(tmp_path, "raise ValueError('no such op')")["error"] == "ValueError: no such op"


def test_a_peer_that_writes_nothing_has_failed(tmp_path):
    assert serve(tmp_path, "pass")["error"] == "it ended without an error and wrote no model"


@pytest.mark.parametrize(
    ("runtime", "features", "made"),
    [
        ("openvino", {"avx512_bf16"}, ["somebody, bf16"]),
        ("openvino", {"avx512_vnni"}, []),
        ("onnxruntime", {"avx512_bf16"}, []),
    ],
)
def test_a_peer_gets_the_bfloat16_that_openvino_takes_unasked(monkeypatch, runtime, features, made):
    from peers import engines

    host = dataclasses.replace(detect_host(), features=frozenset(features))
    monkeypatch.setattr(engines, "detect_host", lambda: host)
    engine = Engine(
        runtime=runtime, runtime_version="1", directory=Path(), entry="model.xml", status="built", inputs=(), outputs=(),
        options={"properties": {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}},
    )  # fmt: skip
    entry = engines.Entry(tool="somebody", runtime=runtime, own=False, engine=engine)
    found = engines._in_bfloat16(entry)
    assert [one.tool for one in found] == made
    for one in found:
        assert one.engine.options["properties"] == {"INFERENCE_PRECISION_HINT": "bf16", "PERFORMANCE_HINT": "LATENCY"}
    assert engine.options["properties"]["INFERENCE_PRECISION_HINT"] == "f32"


def test_every_peer_has_its_script_and_pins(tmp_path):
    from peers.environments import PEERS

    for peer in PEERS.values():
        assert (TOOLS / peer.script).is_file()
        assert all("==" in requirement for requirement in peer.requirements)


def test_a_peer_that_cannot_be_installed_is_an_error_with_pips_words(tmp_path, monkeypatch):
    from peers import environments

    peer = environments.Peer(title="Nobody", script="", requirements=("nobody==1.0",))
    monkeypatch.setattr(environments, "PEERS", {"nobody": peer})
    answer = subprocess.CompletedProcess([], 1, "", "ERROR: No matching distribution\n  found for nobody==1.0\n")
    monkeypatch.setattr(environments.subprocess, "run", lambda *_, **__: answer)
    with pytest.raises(RuntimeError, match=r"pip cannot install Nobody: .* found for nobody==1\.0"):
        environments.python_of("nobody", tmp_path)
    assert not (tmp_path / "nobody" / "installed.txt").exists()


def test_the_summary_has_a_line_per_net_and_runtime():
    from peers.table import summary

    verdicts = {"openvino": {"status": "met", "text": "0.9"}, "onnxruntime": {"status": "missed", "text": "1.1"}}
    lines = summary([{"net": "vit", "verdicts": verdicts}]).splitlines()
    assert lines[2:] == ["| vit | openvino | met | 0.9 |", "| vit | onnxruntime | missed | 1.1 |"]
