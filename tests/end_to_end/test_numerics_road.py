"""A real net's artifacts under real emulation: what other instruction sets make of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from emulation import demand_emulation
from onnx import TensorProto, helper, numpy_helper

import edgeopt
from edgeopt.bundle.document import Report
from edgeopt.cli.edge import run
from edgeopt.cli.main import cli
from edgeopt.core.engine import Engine
from edgeopt.core.spec import TensorSpec
from edgeopt.devices.registry import opened
from edgeopt.pipeline.numerics import compare_bundle
from edgeopt.pipeline.on_device import run_there
from edgeopt.targets.host import detect_host
from edgeopt.targets.local import VNNI

pytestmark = pytest.mark.long

MODEL = Path(__file__).parents[2] / "examples" / "digits" / "model.pt2"
ARM = ("qemu:cortex-a53", "qemu:cortex-a76", "qemu:max")
FAST = [
    "measure.latency_samples=10",
    "measure.roofline=false",
    "measure.warmup=1",
    "measure.block=5",
    "measure.batch_sizes=[1]",
    "parity.samples=16",
]


@pytest.fixture(scope="module", autouse=True)
def emulation(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        demand_emulation(tmp_path_factory, patch)
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """``made(target, recipe)``: the digits CNN as a bundle, made once."""
    folder, done = tmp_path_factory.mktemp("bundles"), {}

    def make(target, recipe):
        if (target, recipe) not in done:
            output = folder / f"{target}-{recipe}"
            edgeopt.compile(MODEL, target=target, data="digits", recipe=recipe, output=output, overrides=FAST)
            done[target, recipe] = output
        return done[target, recipe]

    return make


def test_int8_is_the_same_on_every_arm_core(made):
    """Sums of 8-bit products are exact in 32 bits, so only a rounding of the requantization can differ: one step."""
    section = compare_bundle(made("raspberry-pi-4", "int8-ptq"), data="digits", devices=ARM, samples=16)
    assert [row.error for row in section.rows] == ["", "", ""]
    for row in section.rows:
        assert row.within
        assert row.worst is not None
        assert row.worst.steps is not None
        assert row.worst.steps <= 1
        accuracy = row.figure("accuracy_top1_pct")
        assert accuracy is not None
        assert accuracy.device == row.name
        assert accuracy.n == 16


def test_seven_bit_weights_are_bit_equal_without_vnni_and_eight_bit_ones_saturate(made):
    if not detect_host().features.intersection(VNNI):
        pytest.skip("this CPU has no VNNI: it saturates as Haswell does, so there is nothing to compare with")
    narrow = compare_bundle(made("x86-avx2", "int8-ptq"), data="digits", devices=["qemu:haswell"], samples=16)
    assert narrow.rows[0].worst is not None
    assert (narrow.rows[0].worst.differing, narrow.rows[0].within) == (0, True)
    wide = compare_bundle(made("x86-vnni", "int8-ptq"), data="digits", devices=["qemu:haswell"], samples=16)
    assert wide.rows[0].within is False
    assert wide.rows[0].worst is not None
    assert wide.rows[0].worst.steps is not None
    assert wide.rows[0].worst.steps > 4


def test_float_differs_by_the_order_of_sums_alone(made):
    bundle = made("raspberry-pi-4", "fp32")
    section = compare_bundle(bundle, data="digits", devices=[*ARM, "qemu:haswell"], samples=4)
    for row in section.rows:
        assert row.error == ""
        assert row.worst is not None
        assert row.worst.relative is not None
        assert row.worst.relative <= 1e-6
        assert row.worst.changed_predictions == 0


def test_a_compile_records_the_comparison_and_its_bundle_stays_whole(made, tmp_path, capsys):
    output = tmp_path / "bundle"
    words = ["compile", str(MODEL), "--target", "raspberry-pi-4", "--data", "digits", "--recipe", "int8-ptq"]
    words += [word for text in FAST for word in ("--set", text)]
    more = ["--numerics", "qemu:cortex-a72", "--numerics-samples", "8", "-o", str(output)]
    assert run(cli, [*words, *more]) == 0
    assert "Other instruction sets" in capsys.readouterr().out
    report = Report.model_validate_json((output / "report.json").read_text())
    assert report.numerics is not None
    assert [row.spec for row in report.numerics.rows] == ["qemu:cortex-a72"]
    assert report.numerics.samples == 8
    assert run(cli, ["verify", str(output), "--device", "qemu:cortex-a72"]) == 0


def test_a_compile_on_an_emulated_cpu_has_accuracy_and_no_times(mlp, tmp_path, capsys):
    output = tmp_path / "bundle"
    data = np.load(mlp / "mlp.npz")
    few = tmp_path / "few.npz"
    np.savez(few, x=data["x"][:16], y=data["y"][:16], x_calibration=data["x_calibration"])
    words = ["compile", str(mlp / "mlp.pt2"), "--target", "raspberry-pi-5", "--data", str(few), "--recipe", "int8-ptq"]
    words += [word for text in FAST for word in ("--set", text)]
    assert run(cli, [*words, "--device", "qemu:cortex-a76", "-o", str(output)]) in (0, 4)
    report = Report.model_validate_json((output / "report.json").read_text())
    accuracy, latency = (report.shipped.figure(name) for name in ("accuracy_top1_pct", "latency_p50_ms"))
    assert accuracy is not None
    assert accuracy.device == report.device.name == "qemu cortex-a76 (emulated on x86_64)"
    assert latency is not None
    assert latency.value is None
    assert latency.reason is not None
    assert "numerics only" in latency.reason
    capsys.readouterr()
    assert run(cli, ["bench", str(output), "--device", "qemu:cortex-a76"]) == 1
    assert "Latency, throughput and memory are not measured on this device." in capsys.readouterr().err
    wrong = [*words, "-o", str(tmp_path / "other"), "--device", "qemu:cortex-a53"]
    assert run(cli, wrong) == 1
    assert "has asimddp" in capsys.readouterr().err


def test_a_device_that_cannot_run_it_is_a_row_of_its_own(made, tmp_path, capsys, monkeypatch):
    from edgeopt.devices.qemu import device

    def broken(self, runtime, versions="", module=""):
        if self.cpu.name == "max":
            raise device.DeviceError("It has no runtime.")
        return "1.0"

    monkeypatch.setattr(device.QemuDevice, "demand", broken)
    table = tmp_path / "isa.json"
    bundle = str(made("raspberry-pi-4", "int8-ptq"))
    words = [
        "eval",
        bundle,
        "--data",
        "digits",
        "--samples",
        "4",
        "--device",
        "qemu:max",
        "--device",
        "qemu:cortex-a53",
    ]
    assert run(cli, [*words, "-o", str(table)]) == 1
    first, second = json.loads(table.read_text())["rows"]
    assert "It has no runtime." in first["error"]
    assert (second["error"], second["within"]) == ("", True)
    assert "not run" in capsys.readouterr().out


def test_int8_weights_of_minus_128_overflow_on_cores_without_dot_product(tmp_path):
    """onnxruntime#31573. If this fails the wheel is mended, and the rule on such weights can go."""
    count, width, rows = 256, 16, 4
    assert _product(tmp_path, -128, "qemu:cortex-a53", count, width, rows) == 1.0
    assert _product(tmp_path, -127, "qemu:cortex-a53", count, width, rows) == 0.0
    assert _product(tmp_path, -128, "qemu:cortex-a76", count, width, rows) == 0.0


def _product(folder, value, spec, count, width, rows):
    """The share of wrong elements of a product with weights that are all ``value``; NumPy's int64 is the oracle."""
    weights, given = np.full((count, width), value, np.int8), np.full((rows, count), -128, np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["a", "b"], ["y"])],
        "product",
        [helper.make_tensor_value_info("a", TensorProto.INT8, [rows, count])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [rows, width])],
        [numpy_helper.from_array(weights, "b")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), folder / "product.onnx"
    )
    engine = Engine(
        runtime="onnxruntime",
        runtime_version="",
        directory=folder,
        entry="product.onnx",
        status="built",
        inputs=(TensorSpec(name="a", dtype="int8", shape=(rows, count)),),
        outputs=(TensorSpec(name="y", dtype="int32", shape=(rows, width)),),
    )
    with opened(spec) as device:
        found = run_there(device, engine, {"a": given}, 1)["y"]
    return float((found != given.astype(np.int64) @ weights.astype(np.int64)).mean())
