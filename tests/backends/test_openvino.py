"""OpenVINO: what it must never do behind our back."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from backend_nets import conv_net, make_rules, make_target, quantized_net, two_input_net
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgeopt.agent.runners import openvino as runner
from edgeopt.backends.registry import BACKENDS
from edgeopt.core.errors import BackendError

pytest.importorskip("openvino", reason="pip install 'edgeopt[openvino]'")

BACKEND = BACKENDS["openvino"]


def run_python(code, tmp_path):
    # CI: OpenVINO's telemetry keeps quiet there, also in the control that imports it without our guard.
    environment = {**os.environ, "CI": "true", "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    return done.stdout.split()


def test_importing_openvino_through_us_loads_no_telemetry(tmp_path):
    code = """
import sys
import time
from edgeopt.agent.runners.openvino import import_openvino
ov = import_openvino()
from openvino.tools.ovc import telemetry_utils
print("openvino_telemetry" in sys.modules, telemetry_utils.tm.__name__, callable(ov.convert_model))
"""
    assert run_python(code, tmp_path) == ["False", "openvino.tools.ovc.telemetry_stub", "True"]
    assert not (tmp_path / "intel").exists()


def test_importing_openvino_by_itself_would_load_it(tmp_path):
    pytest.importorskip("openvino_telemetry")
    assert run_python("import sys, openvino; print('openvino_telemetry' in sys.modules)", tmp_path) == ["True"]


def test_a_whole_compile_and_run_never_opens_a_socket(tmp_path):
    code = f"""
import socket, sys
def refuse(*_, **__): raise SystemExit("a socket was opened")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
sys.path.insert(0, {str(Path(__file__).parent)!r})
import pathlib, onnx, numpy
from backend_nets import conv_net, make_rules, make_target
from edgeopt.backends.registry import BACKENDS
folder = pathlib.Path({str(tmp_path)!r})
onnx.save(conv_net(), folder / "g.onnx"); (folder / "e").mkdir()
engine = BACKENDS["openvino"].compile(folder / "g.onnx", make_target(), make_rules("openvino"), folder / "e", 1)
with BACKENDS["openvino"].load(engine, 1) as r:
    r.infer({{"image": numpy.zeros((1, 3, 6, 6), "float32")}})
print("ran", "openvino_telemetry" in sys.modules)
"""
    assert run_python(code, tmp_path) == ["ran", "False"]


def test_the_shape_is_static_whatever_the_graph_says(save, empty):
    engine = BACKEND.compile(save(conv_net("n")), make_target(), make_rules("openvino"), empty(), 3)
    assert engine.inputs[0].shape == (3, 3, 6, 6)
    assert engine.outputs[0].shape == (3, 5)
    assert 'shape="3,3,6,6"' in (engine.directory / "model.xml").read_text()
    assert 'shape="?' not in (engine.directory / "model.xml").read_text()


def expanded_token_net():
    """A learned token, expanded to the batch and concatenated: what OpenVINO gets wrong in int8 with a dynamic batch."""
    rng = np.random.default_rng(0)
    weights = {
        "token": rng.normal(size=(1, 1, 8)).astype("float32"),
        "w": rng.integers(-63, 64, (8, 8)).astype("int8"),
        "ws": rng.uniform(0.005, 0.01, 8).astype("float32"),
        "wz": np.zeros(8, "int8"),
        "s": np.float32(0.03),
        "z": np.int8(0),
        "zero": np.array([0], "int64"),
        "tail": np.array([1, 8], "int64"),
    }
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["count"]),
        helper.make_node("Concat", ["count", "tail"], ["to"], axis=0),
        helper.make_node("Expand", ["token", "to"], ["tokens"]),
        helper.make_node("Concat", ["tokens", "x"], ["all"], axis=1),
        helper.make_node("QuantizeLinear", ["all", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wd"], axis=1),
        helper.make_node("MatMul", ["d", "wd"], ["y"], "matmul"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5, 8])],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def test_an_expanded_constant_is_right_at_every_batch(save, empty):
    net = expanded_token_net()
    engine = BACKEND.compile(save(net), make_target(), make_rules("openvino"), empty(), 2)
    with BACKEND.load(engine, 1) as opened:
        for count in (2, 1, 7):
            opened.resize(count)
            x = np.random.default_rng(count).normal(size=(count, 4, 8)).astype("float32")
            expected = ReferenceEvaluator(net).run(None, {"x": x})[0]
            # One quantization step times the largest weight, for a value on a rounding edge.
            np.testing.assert_allclose(opened.infer({"x": x})["y"], expected, atol=0.03 * 63 * 0.01, rtol=0)


def test_the_model_is_compiled_in_float32_for_latency_with_the_threads_asked_for(save, empty):
    engine = BACKEND.compile(save(conv_net()), make_target(), make_rules("openvino"), empty(), 1)
    with runner.open_runner(engine.path, engine.options, 2) as opened:
        compiled = opened._compiled
        assert compiled.get_property("INFERENCE_PRECISION_HINT").to_dtype() == np.float32
        assert compiled.get_property("INFERENCE_NUM_THREADS") == 2
        assert compiled.get_property("NUM_STREAMS") == 1
        assert str(compiled.get_property("PERFORMANCE_HINT")).endswith("LATENCY")


def test_weights_stay_float32_on_disk(save, empty):
    net = conv_net()
    engine = BACKEND.compile(save(net), make_target(), make_rules("openvino"), empty(), 1)
    stored = (engine.directory / "model.bin").read_bytes()
    for tensor in net.graph.initializer:
        if tensor.name in ("w", "f"):
            values = numpy_helper.to_array(tensor)  # the folding turns a linear layer's over
            assert values.tobytes() in stored or values.T.tobytes() in stored


def test_bytes_do_not_depend_on_what_the_process_did_before(save, empty):
    first = BACKEND.compile(save(conv_net(), "a.onnx"), make_target(), make_rules("openvino"), empty("a"), 1)
    for index in range(3):
        BACKEND.compile(save(two_input_net()), make_target(), make_rules("openvino"), empty(f"between{index}"), 1)
    again = BACKEND.compile(save(conv_net(), "b.onnx"), make_target(), make_rules("openvino"), empty("b"), 1)
    for name in ("model.xml", "model.bin"):
        assert (first.directory / name).read_bytes() == (again.directory / name).read_bytes()


def test_a_truncated_weights_file_is_refused(save, empty):
    engine = BACKEND.compile(save(conv_net()), make_target(), make_rules("openvino"), empty(), 1)
    weights = engine.directory / "model.bin"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(BackendError, match=r"OpenVINO cannot open model\.xml"):
        BACKEND.load(engine, 1)


def test_a_dimension_that_varies_beyond_the_batch_is_refused(save, empty):
    net = conv_net()
    net.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    graph = save(net)
    findings = BACKEND.check(graph, make_target(), make_rules("openvino"))
    assert [(f.severity, f.rule) for f in findings] == [("error", "OV002")]
    with pytest.raises(BackendError, match="varies beyond its batch"):
        BACKEND.compile(graph, make_target(), make_rules("openvino"), empty(), 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"INFERENCE_PRECISION_HINT": "bf16"}, "INFERENCE_PRECISION_HINT = 'f32'"),
        ({"PERFORMANCE_HINT": "CUMULATIVE"}, "PERFORMANCE_HINT = 'LATENCY' or 'THROUGHPUT'\\. Received: 'CUMULATIVE'"),
        ({"CACHE_DIR": "/somewhere"}, "'CACHE_DIR'"),
        ({"ENABLE_CPU_PINNING": "yes"}, "must be of type bool"),
    ],
)
def test_an_option_that_would_change_numerics_or_the_measurement_is_refused(save, options, message):
    with pytest.raises(BackendError, match=message):
        BACKEND.check(save(conv_net()), make_target(), make_rules("openvino", options=options))


def test_a_target_may_repeat_what_we_set_and_choose_what_is_free(save, empty):
    options = {"INFERENCE_PRECISION_HINT": "f32", "ENABLE_HYPER_THREADING": False}
    engine = BACKEND.compile(save(conv_net()), make_target(), make_rules("openvino", options=options), empty(), 1)
    with runner.open_runner(engine.path, engine.options, 1) as opened:
        assert opened._compiled.get_property("ENABLE_HYPER_THREADING") is False


def test_an_operator_that_openvino_does_not_have_is_named(save, empty):
    net = conv_net()
    net.graph.node[1].op_type, net.graph.node[1].domain = "Mystery", "ai.example"
    net.opset_import.append(helper.make_opsetid("ai.example", 1))
    with pytest.raises(BackendError, match="Mystery"):
        BACKEND.compile(save(net), make_target(), make_rules("openvino"), empty(), 1)


def test_a_node_that_stays_in_float_is_a_fall_back(save, empty):
    # 16-bit activations: OpenVINO has no kernel for them, and the lint of this runtime does not forbid them.
    net = quantized_net(dtype="int16", opset=21)
    engine = BACKEND.compile(save(net), make_target(), make_rules("openvino"), empty(), 1)
    assert {event.node for event in engine.events if event.kind == "fallback"} == {"conv", "gemm"}


def test_external_weights_are_read(empty, tmp_path):
    path = tmp_path / "big.onnx"
    onnx.save(conv_net(), path, save_as_external_data=True, location="big.data", size_threshold=0)
    engine = BACKEND.compile(path, make_target(), make_rules("openvino"), empty(), 1)
    x = np.random.default_rng(0).normal(size=(1, 3, 6, 6)).astype("float32")
    with BACKEND.load(engine, 1) as opened:
        expected = ReferenceEvaluator(conv_net()).run(None, {"image": x})[0]
        np.testing.assert_allclose(opened.infer({"image": x})["logits"], expected, atol=1e-4, rtol=0)


def test_openvinos_own_clock_counts_the_last_inference_and_less_than_we_see(tmp_path):
    onnx.save(conv_net(), tmp_path / "g.onnx")
    (tmp_path / "e").mkdir()
    engine = BACKEND.compile(tmp_path / "g.onnx", make_target(), make_rules("openvino"), tmp_path / "e", 1)
    shape = [n if isinstance(n, int) else 1 for n in engine.inputs[0].shape]
    given = {engine.inputs[0].name: np.zeros(shape, np.float32)}
    with runner.open_runner(engine.path, engine.options, 1) as opened:
        for _ in range(3):
            start = time.perf_counter_ns()
            opened.infer(given)
            seen = time.perf_counter_ns() - start
            assert 0 < opened.last_ns() <= seen
        expected = opened.infer(given)
        call = opened.bound(given)
        start = time.perf_counter_ns()
        call()
        seen = time.perf_counter_ns() - start
        assert 0 < opened.last_ns() <= seen
        assert all(np.array_equal(expected[name], opened.infer(given)[name]) for name in expected)
