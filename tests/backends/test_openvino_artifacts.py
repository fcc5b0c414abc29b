"""OpenVINO in depth: float16 weights on disk, the compiled model, streams, and devices that are not here."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from backend_nets import conv_net, half_net, make_rules, make_target, quantized_net, two_input_net
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from edgeopt.agent.runners import openvino as runner
from edgeopt.backends.registry import BACKENDS
from edgeopt.core.errors import BackendError

pytest.importorskip("openvino", reason="pip install 'edgeopt[openvino]'")

BACKEND = BACKENDS["openvino"]
IMAGE = np.random.default_rng(0).normal(size=(6, 3, 6, 6)).astype("float32")


@pytest.fixture
def build(save, empty):
    """Compile with options."""

    def run(net, folder="engine", batch=1, **options):
        rules = make_rules("openvino", options=options)
        return BACKEND.compile(save(net, f"{folder}.onnx"), make_target(), rules, empty(folder), batch)

    return run


def messages(engine):
    return " ".join(event.message for event in engine.events)


def run(engine, image, threads=1):
    with BACKEND.load(engine, threads) as opened:
        if len(image) > 1:
            opened.resize(len(image))
        return opened.infer({"image": image})["logits"], list(opened.fallbacks)


def test_compressed_weights_are_float16_on_disk_and_rounded_once(build):
    net = conv_net()
    whole, compressed = build(net, "whole"), build(net, "compressed", compress_to_fp16=True)
    sizes = [(engine.directory / "model.bin").stat().st_size for engine in (whole, compressed)]
    assert sizes[1] < 0.55 * sizes[0]
    assert "Float weights are stored in float16" in messages(compressed)
    assert "float16" not in messages(whole)
    # An oracle of its own: the same net whose float weights were rounded to float16 beforehand.
    for tensor in net.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(value.astype("float16").astype("float32"), tensor.name))
    expected = ReferenceEvaluator(net).run(None, {"image": IMAGE[:1]})[0]
    np.testing.assert_allclose(run(compressed, IMAGE[:1])[0], expected, atol=1e-4)
    assert np.abs(run(whole, IMAGE[:1])[0] - expected).max() > 1e-4


@pytest.mark.parametrize("net", [conv_net, quantized_net], ids=["float", "int8"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_compiled_model_gives_what_its_ir_gives(build, net, threads):
    plain, compiled = build(net(), "plain"), build(net(), "compiled", blob=True)
    assert (compiled.entry, compiled.status) == ("model.blob", "built")
    assert {p.name for p in compiled.directory.iterdir()} == {"model.blob", "model.xml", "model.bin"}
    expected, _ = run(plain, IMAGE[:1], threads)
    actual, fallbacks = run(compiled, IMAGE[:1], threads)
    np.testing.assert_array_equal(actual, expected)
    assert fallbacks == []
    with runner.open_runner(compiled.path, compiled.options, threads) as opened:
        assert opened._compiled.get_property("INFERENCE_NUM_THREADS") == threads


def test_a_compiled_model_is_resized_through_its_ir(build):
    engine = build(conv_net(), blob=True)
    expected = ReferenceEvaluator(conv_net()).run(None, {"image": IMAGE})[0]
    np.testing.assert_allclose(run(engine, IMAGE)[0], expected, atol=1e-4)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"",
        lambda data: data.replace(b"ov=20", b"ov=19", 1),
        lambda data: data.replace(b"isa=", b"isa=x", 1),
    ],
    ids=["half", "empty", "another version", "another instruction set"],
)
def test_a_compiled_model_that_openvino_refuses_is_compiled_anew_from_the_ir_and_said_so(build, spoil):
    engine = build(conv_net(), blob=True)
    data = engine.path.read_bytes()
    assert spoil(data) != data
    engine.path.write_bytes(spoil(data))
    actual, fallbacks = run(engine, IMAGE[:1])
    np.testing.assert_allclose(actual, ReferenceEvaluator(conv_net()).run(None, {"image": IMAGE[:1]})[0], atol=1e-4)
    assert len(fallbacks) == 1
    assert "model.xml was compiled instead" in fallbacks[0]


def test_a_compiled_model_that_is_not_there_is_an_error(build):
    engine = build(conv_net(), blob=True)
    engine.path.unlink()
    with pytest.raises(BackendError, match=r"cannot open model\.blob: there is no such file"):
        BACKEND.load(engine, 1)


def test_a_compiled_model_opens_in_a_process_of_its_own(build, tmp_path):
    engine = build(quantized_net(), blob=True)
    code = f"""
import numpy, pathlib
from edgeopt.agent.runners.openvino import open_runner
with open_runner(pathlib.Path({str(engine.path)!r}), {dict(engine.options)!r}, 1) as r:
    print(len(r.fallbacks), r.infer({{"image": numpy.ones((1, 3, 6, 6), "float32")}})["logits"].tolist())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = ReferenceEvaluator(quantized_net()).run(None, {"image": np.ones((1, 3, 6, 6), "float32")})[0]
    fallbacks, _, values = done.stdout.partition(" ")
    assert fallbacks == "0"
    np.testing.assert_allclose(json.loads(values), expected, atol=0.03)


@pytest.mark.parametrize(("compiled_at", "count"), [(1, 1), (1, 6), (2, 6), (3, 3), (1, 5)])
def test_streams_run_pieces_of_a_batch_side_by_side_and_give_the_same(build, compiled_at, count):
    options = {"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": 2}
    engine = build(conv_net(), batch=compiled_at, **options)
    assert "2 streams" in messages(engine)
    with runner.open_runner(engine.path, engine.options, 2) as opened:
        opened.resize(count)
        assert opened.inputs["image"][1] == [count, 3, 6, 6]
        assert opened.outputs["logits"][1] == [count, 5]
        assert opened._compiled.inputs[0].shape[0] == compiled_at  # not reshaped
        assert opened._compiled.get_property("NUM_STREAMS") == 2
        assert str(opened._compiled.get_property("PERFORMANCE_HINT")).endswith("THROUGHPUT")
        for _ in range(3):
            actual = opened.infer({"image": IMAGE[:count]})["logits"]
            expected = ReferenceEvaluator(conv_net()).run(None, {"image": IMAGE[:count]})[0]
            np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_streams_reshape_where_the_batch_is_no_multiple_of_the_compiled_one(build):
    engine = build(conv_net(), batch=4, NUM_STREAMS=2)
    with BACKEND.load(engine, 1) as opened:
        opened.resize(6)
        expected = ReferenceEvaluator(conv_net()).run(None, {"image": IMAGE})[0]
        np.testing.assert_allclose(opened.infer({"image": IMAGE})["logits"], expected, atol=1e-4)


def test_streams_keep_several_inputs_and_outputs_in_their_places(build):
    engine = build(two_input_net(), NUM_STREAMS=3)
    inputs = {"token": np.arange(5) % 7, "dense": np.random.default_rng(1).normal(size=(5, 4)).astype("float32")}
    with BACKEND.load(engine, 1) as opened:
        opened.resize(5)
        actual = opened.infer(inputs)
        with pytest.raises(BackendError, match="has shape"):
            opened.infer({name: array[:2] for name, array in inputs.items()})
    for got, want in zip(actual.values(), ReferenceEvaluator(two_input_net()).run(None, inputs), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("device", ["GPU", "NPU"])
def test_a_device_that_is_not_here_gets_the_ir_and_what_compiles_it_there(build, device):
    if any(name.startswith(device) for name in runner.import_openvino().Core().available_devices):
        pytest.skip(f"this machine has a {device} that OpenVINO sees")
    engine = build(conv_net(), device=device)
    assert (engine.status, engine.entry, engine.next_command) == ("not_built", "model.blob", "python3 build_blob.py")
    assert {p.name for p in engine.directory.iterdir()} == {"model.xml", "model.bin", "build_blob.py", "build.json"}
    assert f"OpenVINO sees no {device} on this machine" in messages(engine)
    assert "int8" not in messages(engine)  # the CPU's coverage is not told as the device's
    settings = json.loads((engine.directory / "build.json").read_text())
    assert settings["device"] == device
    assert settings["properties"]["INFERENCE_PRECISION_HINT"] == {"GPU": "f32", "NPU": "f16"}[device]
    command = [sys.executable, "build_blob.py"]
    refused = subprocess.run(command, cwd=engine.directory, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert f"OpenVINO sees no {device} here, only CPU. Install Intel's" in refused.stderr


def test_float16_in_the_graph_is_computed_in_float16_on_a_gpu(build):
    engine = build(half_net(), device="GPU")
    assert engine.options["properties"]["INFERENCE_PRECISION_HINT"] == "f16"
    asked = build(half_net(), "asked", device="GPU", INFERENCE_PRECISION_HINT="f32")
    assert asked.options["properties"]["INFERENCE_PRECISION_HINT"] == "f32"


def test_the_script_compiles_what_a_runner_then_opens(build):
    """On the CPU, which is the only device here: the same steps as on a GPU."""
    engine = build(conv_net(), device="GPU")
    command = [sys.executable, "build_blob.py", "--device", "CPU"]
    done = subprocess.run(command, cwd=engine.directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Wrote model.blob (")
    options = dict(engine.options) | {"device": "CPU"}
    with runner.open_runner(engine.path, options, 1) as opened:
        assert opened.fallbacks == []
        actual = opened.infer({"image": IMAGE[:1]})["logits"]
    np.testing.assert_allclose(actual, ReferenceEvaluator(conv_net()).run(None, {"image": IMAGE[:1]})[0], atol=1e-4)
    (engine.directory / "model.bin").write_bytes(b"")
    broken = subprocess.run(command, cwd=engine.directory, capture_output=True, text=True, check=False)
    assert (broken.returncode, broken.stderr.startswith("OpenVINO cannot compile the model for CPU: ")) == (1, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "AUTO"}, r"for one OpenVINO device\. Received: 'AUTO'\. Use one of CPU, GPU, NPU"),
        ({"device": "GPU", "INFERENCE_PRECISION_HINT": "bf16"}, r"= 'f32' or 'f16' on GPU\. Received: 'bf16'"),
        ({"device": "NPU", "INFERENCE_PRECISION_HINT": "f32"}, r"= 'f16' on NPU\. Received: 'f32'"),
        ({"NUM_STREAMS": 0}, r"NUM_STREAMS must be between 1 and 256\. Received: 0"),
        ({"device": "GPU", "blob": True}, r"made on the device, with no option\. Received: blob with device 'GPU'"),
        ({"blob": "yes"}, r"'blob' of the runtime openvino must be of type bool"),
    ],
)
def test_a_wrong_option_is_refused_before_any_work(save, options, message):
    with pytest.raises(BackendError, match=message):
        BACKEND.check(save(conv_net()), make_target(), make_rules("openvino", options=options))
