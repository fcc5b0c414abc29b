"""From a model file and data to a bundle: the whole road, with real runtimes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

import edgeopt
from edgeopt.bundle.document import Report
from edgeopt.cli.edge import run
from edgeopt.cli.main import cli

FAST = ["--set", "measure.latency_samples=20", "--set", "measure.warmup=2", "--set", "measure.block=10"]
DIGITS = Path(__file__).parents[2] / "examples" / "digits" / "model.pt2"
EDGEOPT = [sys.executable, "-c", "from edgeopt.cli.main import main; main()"]


def _compile(mlp: Path, output: Path, target: str, *more: str) -> int:
    """One rung of the road, ``int8-ptq`` where ``more`` names no other; the ladder has tests of its own."""
    more = more if "-r" in more else ("-r", "int8-ptq", *more)
    data = ["--data", str(mlp / "mlp.npz")]
    return run(cli, ["compile", str(mlp / "mlp.pt2"), "--target", target, *data, "-o", str(output), *FAST, *more])


def _report(output: Path) -> Report:
    return Report.model_validate_json((output / "report.json").read_text())


@pytest.fixture(scope="module")
def local(mlp: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("local") / "bundle"
    assert _compile(mlp, output, "local") == 0
    return output


def test_local_measures_both_runtimes_in_fp32_and_int8(local: Path) -> None:
    report = _report(local)
    assert [c.id for c in report.candidates] == [
        "onnxruntime-fp32",
        "onnxruntime-int8",
        "openvino-fp32",
        "openvino-int8",
    ]
    for candidate in report.candidates:
        assert candidate.status == "measured"
        for name in ("accuracy_top1_pct", "latency_p50_ms", "latency_p99_ms", "peak_memory_mib", "size_mib"):
            figure = candidate.figure(name)
            assert figure is not None, name
            assert figure.value is not None, figure.reason
    assert sum(c.shipped for c in report.candidates) == 1
    assert report.target.measured_here


def test_what_is_shipped_is_held_against_the_machines_peaks(local: Path, mlp: Path, tmp_path: Path) -> None:
    found = _report(local).roofline
    assert found is not None
    working = [row for row in found.rows if row.macs]
    assert {row.runs_in for row in working} <= {"int8", "float32"}
    assert found.whole.macs == sum(row.macs for row in working) > 0
    assert all(peak.value for peak in (found.peaks.int8, found.peaks.float32, found.peaks.bandwidth))
    assert "Against the machine's peaks" in (local / "report.md").read_text()
    assert _compile(mlp, tmp_path / "none", "local", "--set", "measure.roofline=false") == 0
    assert _report(tmp_path / "none").roofline is None
    assert _compile(mlp, tmp_path / "pi", "raspberry-pi-5") == 0  # not this machine: nothing to hold it against
    assert _report(tmp_path / "pi").roofline is None


def test_every_runtime_scores_as_the_model_does(local: Path) -> None:
    for candidate in _report(local).candidates:
        accuracy, drop = candidate.figure("accuracy_top1_pct"), candidate.figure("drop_pp")
        assert accuracy is not None
        assert accuracy.value is not None
        assert accuracy.value > 93
        if candidate.role == "reference":  # against itself it has neither a drop nor an agreement
            assert drop is candidate.figure("agreement_pct") is None
        else:
            assert drop is not None
            assert drop.interval is not None
            assert drop.value is not None
            assert drop.interval.low <= drop.value <= drop.interval.high


def test_every_engine_is_held_against_pytorch_and_a_second_runtime(local: Path) -> None:
    rows = _report(local).parity
    for name in ("onnxruntime-int8", "openvino-int8", "onnxruntime-fp32", "openvino-fp32"):
        against = [row.against for row in rows if row.stage == name]
        assert any("PyTorch" in text for text in against), name
        assert any("openvino" in text or "onnxruntime" in text for text in against), name
    assert all(row.passed for row in rows)


def test_the_bundle_predicts_and_verifies(local: Path, mlp: Path) -> None:
    with np.load(mlp / "mlp.npz") as data, edgeopt.load(local) as model:
        scores = model.predict(data["x"])
        labels = data["y"]
    assert scores.shape == (1000, 2)
    assert (scores.argmax(1) == labels).mean() > 0.93
    assert run(cli, ["verify", str(local)]) == 0
    assert run(cli, ["inspect", str(local)]) == 0


def test_a_changed_byte_is_found_by_verify(local: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(local, copy)
    model = copy / "model.onnx"
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    model.write_bytes(content)
    assert run(cli, ["verify", str(copy)]) == 1


def test_the_second_run_comes_from_the_cache(local: Path, mlp: Path, tmp_path: Path) -> None:
    assert _compile(mlp, tmp_path / "again", "local") == 0
    report = _report(tmp_path / "again")
    assert [s.name for s in report.stages if not s.cached] == ["read and check the data", "write the bundle"]


def test_the_same_command_twice_gives_the_same_bytes(local: Path, mlp: Path, tmp_path: Path) -> None:
    assert _compile(mlp, tmp_path / "fresh", "local", "--no-cache") == 0
    files = ["recipe.yaml", "target.yaml", "reference_inputs.npz"]
    first, second = _report(local), _report(tmp_path / "fresh")
    if first.shipped.id == second.shipped.id:  # in a net this small the clock may choose another one
        kept = [local / "model.onnx", *local.glob("calibration.json"), *(local / "engine").rglob("*")]
        files += [str(p.relative_to(local)) for p in kept if p.is_file()]
    for name in files:
        assert (local / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes(), name


def test_jetson_gets_a_portable_bundle_and_no_plan(
    mlp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "jetson"
    assert _compile(mlp, output, "jetson") == 0
    report = _report(output)
    assert report.target.name == "jetson-orin-nano"
    assert not report.target.measured_here
    shipped = report.shipped
    assert (shipped.status, shipped.precision) == ("not_built", "int8")
    assert shipped.next_command == "cd engine && python3 build_engine.py --verify"
    assert [c.id for c in report.candidates if c.next_command] == [shipped.id]
    printed = capsys.readouterr().out
    assert printed.count("build_engine.py --verify") == 1
    assert "cd jetson/engine && python3 build_engine.py --verify" in printed
    assert (output / "engine" / "trtexec.sh").is_file()
    assert "trtexec.sh" in printed
    latency, accuracy = shipped.figure("latency_p50_ms"), shipped.figure("accuracy_top1_pct")
    assert latency is not None
    assert latency.value is None
    assert "this machine is" in (latency.reason or "")
    assert accuracy is not None
    assert accuracy.value is not None
    assert "jetson" not in (accuracy.device or "").lower()
    assert (output / "engine" / "build_engine.py").is_file()
    assert not list(output.rglob("*.plan"))


def test_require_engine_makes_an_unbuilt_engine_exit_4(mlp: Path, tmp_path: Path) -> None:
    assert _compile(mlp, tmp_path / "jetson", "jetson", "--require-engine") == 4


def test_another_cpu_is_judged_on_accuracy_only(mlp: Path, tmp_path: Path) -> None:
    assert _compile(mlp, tmp_path / "pi", "raspberry-pi-5") == 0
    shipped = _report(tmp_path / "pi").shipped
    assert shipped.status == "not_measured"
    assert shipped.figure("latency_p50_ms").value is None
    assert shipped.figure("accuracy_top1_pct").value > 93


def test_android_gets_an_ort_file_and_its_operators(mlp: Path, tmp_path: Path) -> None:
    assert _compile(mlp, tmp_path / "phone", "android-arm64") == 0
    names = [p.name for p in (tmp_path / "phone" / "engine").iterdir()]
    assert any(name.endswith(".ort") for name in names)
    assert any("required_operators" in name for name in names)


def test_android_gets_an_int8_net_of_convolutions_that_replays_its_fusions(tmp_path: Path) -> None:
    import onnxruntime as ort

    output = tmp_path / "phone"
    assert run(cli, ["compile", str(DIGITS), "-t", "android-arm64", "--data", "digits", "-o", str(output), *FAST]) == 0
    shipped = _report(output).shipped
    assert (shipped.runtime, shipped.precision, shipped.status) == ("ort-mobile", "int8", "not_measured")
    agreement = shipped.figure("agreement_pct")
    assert agreement is not None
    assert agreement.value is not None
    assert agreement.value > 97
    options = ort.SessionOptions()
    options.add_session_config_entry("session.enable_saved_runtime_optimizations", "1")
    options.enable_profiling, options.profile_file_prefix = True, str(tmp_path / "profile")
    session = ort.InferenceSession(output / "engine" / "model.ort", options, providers=["CPUExecutionProvider"])
    with np.load(output / "reference_inputs.npz") as reference:
        session.run(None, {name: reference[name] for name in reference.files})
    events = json.loads(Path(session.end_profiling()).read_text())
    ran = [event["args"]["op_name"] for event in events if event["name"].endswith("_kernel_time")]
    assert ran.count("QLinearConv") == 7
    assert ran.count("QGemm") == 1
    assert not {"Conv", "FusedConv", "Gemm"} & set(ran)


def test_without_data_the_model_stays_float_and_the_report_says_why(mlp: Path, tmp_path: Path) -> None:
    output = tmp_path / "float"
    assert run(cli, ["compile", str(mlp / "mlp.pt2"), "-t", "openvino-cpu", "-o", str(output), *FAST]) == 0
    report = _report(output)
    assert report.shipped.precision in ("fp32", "fp16")
    assert any("data" in line for line in report.headline)
    assert report.shipped.figure("accuracy_top1_pct").value is None


def test_int8_without_data_is_refused(mlp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["compile", str(mlp / "mlp.pt2"), "-t", "local", "-r", "int8-ptq", "-o", str(tmp_path / "x")]
    assert run(cli, arguments) == 1
    assert "--data" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_dry_run_prints_the_plan_and_writes_nothing(
    mlp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _compile(mlp, tmp_path / "x", "local", "--dry-run", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert [c["id"] for c in plan["candidates"]][:2] == ["onnxruntime-fp32", "onnxruntime-int8"]
    assert plan["measured_here"] is True
    assert list(tmp_path.iterdir()) == []


def test_dry_run_reads_well(mlp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert _compile(mlp, tmp_path / "x", "jetson", "--dry-run") == 0
    text = " ".join(capsys.readouterr().out.split())
    for answer in ("NVIDIA Jetson Orin Nano", "int8-ptq", "drop_pp 1", "on its device", "6. judge"):
        assert answer in text, answer
    assert str(tmp_path / "x").replace(" ", "") in text.replace(" ", "")
    assert list(tmp_path.iterdir()) == []


def test_json_prints_the_report_that_the_bundle_holds(
    mlp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _compile(mlp, tmp_path / "x", "openvino-cpu", "--json") == 0
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "x" / "report.json").read_text())


def test_an_onnx_file_is_compiled_and_measured_but_not_quantized(
    local: Path, mlp: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "float"
    assert _compile(mlp, output, "openvino-cpu", "-r", "fp32") == 0
    onnx = output / "model.onnx"
    data = ["--data", str(mlp / "mlp.npz")]
    refused = ["compile", str(onnx), "-t", "openvino-cpu", *data, "-r", "int8-ptq", "-o", str(tmp_path / "no")]
    assert run(cli, refused) == 1
    assert "ONNX" in capsys.readouterr().err
    taken = ["compile", str(onnx), "-t", "openvino-cpu", *data, "-r", "fp32", "-o", str(tmp_path / "yes"), *FAST]
    assert run(cli, taken) == 0
    assert _report(tmp_path / "yes").shipped.figure("accuracy_top1_pct").value > 93


def test_bench_and_eval_measure_a_bundle_again(local: Path, mlp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(cli, ["bench", str(local), "--samples", "20", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["latency_p50_ms"]["value"] > 0
    assert run(cli, ["eval", str(local), "--data", str(mlp / "mlp.npz"), "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["accuracy_top1_pct"]["value"] > 93
    assert rows["drop_pp"]["value"] is None


def test_an_engine_that_cannot_be_loaded_is_an_error_to_bench(
    local: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torn = tmp_path / "torn"
    shutil.copytree(local, torn)
    for file in (torn / "engine").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    assert run(cli, ["bench", str(torn), "--samples", "20"]) == 1
    told = capsys.readouterr()
    assert "failed at 'load'" in told.err
    assert "edgeopt verify" in told.err
    assert "p50" not in told.out


def test_a_limit_that_is_missed_is_exit_4_or_falls_back_openly(mlp: Path, tmp_path: Path) -> None:
    code = _compile(mlp, tmp_path / "x", "openvino-cpu", "--set", "limits.size_mib=0.000001")
    assert code == 4
    assert _report(tmp_path / "x").verdict.status == "FAIL"


@pytest.mark.long
def test_kill_9_in_the_middle_keeps_the_old_bundle_and_the_next_run_resumes(
    local: Path, mlp: Path, tmp_path: Path
) -> None:
    output, cache = tmp_path / "bundle", tmp_path / "cache"
    environment = os.environ | {"EDGEOPT_CACHE_DIR": str(cache)}
    data = ["--data", str(mlp / "mlp.npz"), "-o", str(output), *FAST]
    command = [*EDGEOPT, "compile", str(mlp / "mlp.pt2"), "--target", "openvino-cpu", *data]
    assert subprocess.run(command, env=environment, check=False).returncode == 0
    before = (output / "manifest.json").read_bytes()
    other = [*command, "--set", "steps.quantize.observer=minmax"]
    killed = subprocess.Popen(other, env=environment, start_new_session=True)
    deadline = time.monotonic() + 120
    done = len(list(cache.glob("*/*/stage.json")))
    while len(list(cache.glob("*/*/stage.json"))) == done and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert (output / "manifest.json").read_bytes() == before
    assert run(cli, ["verify", str(output)]) == 0
    finished = subprocess.run([*other, "--json"], env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    cached = {stage["name"] for stage in json.loads(finished.stdout)["stages"] if stage["cached"]}
    assert {"load the model", "export fp32"} <= cached
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []


def test_tensorrt_may_mix_int8_with_float16(mlp: Path, tmp_path: Path) -> None:
    assert _compile(mlp, tmp_path / "mixed", "jetson", "-r", "int8-ptq-fp16") == 0
    shipped = _report(tmp_path / "mixed").shipped
    assert (shipped.id, shipped.precision) == ("tensorrt-int8-fp16", "int8-fp16")
    assert shipped.figure("accuracy_top1_pct").value > 93
    kinds = {item.data_type for item in onnx.load(tmp_path / "mixed" / "engine" / "model.onnx").graph.initializer}
    assert {TensorProto.INT8, TensorProto.FLOAT16} <= kinds
    assert TensorProto.UINT8 not in kinds
