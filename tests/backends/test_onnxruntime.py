"""ONNX Runtime: options, fall-backs, external weights."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
from backend_nets import conv_net, make_rules, make_target, quantized_net
from onnx.reference import ReferenceEvaluator

from edgeopt.agent.runners import onnxruntime as runner
from edgeopt.backends.registry import BACKENDS
from edgeopt.core.errors import BackendError

ort = pytest.importorskip("onnxruntime", reason="pip install 'edgeopt[onnxruntime]'")

BACKEND = BACKENDS["onnxruntime"]


def compile_with(save, empty, net=None, backend=BACKEND, **options):
    rules = make_rules(backend.name, options=options)
    return backend.compile(save(net or conv_net()), make_target(), rules, empty(), 1)


def test_the_engine_is_the_graph_itself(save, empty):
    engine = compile_with(save, empty)
    assert engine.path.read_bytes() == conv_net().SerializeToString()
    assert engine.inputs[0].shape == ("batch", 3, 6, 6)


def test_options_reach_the_session():
    options = {"graph_optimization_level": "basic", "config": {"session.intra_op.allow_spinning": "0"}}
    made = runner.session_options(ort, options, 3)
    assert made.intra_op_num_threads == 3
    assert made.inter_op_num_threads == 1
    assert made.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    assert made.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_a_target_sets_session_entries_by_their_own_names(save, empty):
    engine = compile_with(save, empty, **{"session.x64quantprecision": True, "session.intra_op.allow_spinning": "1"})
    assert engine.options["config"] == {
        "session.intra_op.allow_spinning": "1",
        "session.qdq_matmulnbits_accuracy_level": "1",
        "session.x64quantprecision": "1",
    }


def test_spinning_is_off_unless_asked_for(save, empty):
    assert compile_with(save, empty).options["config"]["session.intra_op.allow_spinning"] == "0"


def test_a_float_input_of_a_quantized_weight_is_not_quantized_on_the_fly(save, empty):
    # int16 activations are not fused, so ONNX Runtime makes a MatMulNBits of the linear layer.
    net = quantized_net(dtype="int16", opset=21)
    x = np.random.default_rng(0).normal(size=(4, 3, 6, 6)).astype("float32")
    expected = ReferenceEvaluator(net).run(None, {"image": x})[0]
    with BACKEND.load(compile_with(save, empty, net), 1) as opened:
        np.testing.assert_allclose(opened.infer({"image": x})["logits"], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"graph_optimization_level": "turbo"}, "no such optimization level.*'turbo'.*basic"),
        ({"providers": "CPUExecutionProvider"}, "'providers'.*must be of type list or tuple"),
        ({"session.x": [1]}, "must be a text, a bool or an int"),
    ],
)
def test_a_malformed_option_is_refused(save, options, message):
    with pytest.raises(BackendError, match=message):
        BACKEND.check(save(conv_net()), make_target(), make_rules("onnxruntime", options=options))


def test_a_provider_that_is_not_there_is_a_fall_back(save, empty):
    engine = compile_with(save, empty, providers=["QNNExecutionProvider", "CPUExecutionProvider"])
    assert [(e.kind, e.message) for e in engine.events] == [
        ("fallback", "QNNExecutionProvider was asked for and is not there; CPUExecutionProvider runs instead.")
    ]
    with BACKEND.load(engine, 1) as opened:
        assert len(opened.fallbacks) == 1


def test_a_disabled_optimizer_is_passed_on(save, empty):
    engine = compile_with(save, empty, disabled_optimizers=["ConvActivationFusion"])
    x = np.ones((1, 3, 6, 6), "float32")
    with BACKEND.load(engine, 1) as opened:
        np.testing.assert_allclose(
            opened.infer({"image": x})["logits"], ReferenceEvaluator(conv_net()).run(None, {"image": x})[0], atol=1e-4
        )


def test_a_node_that_stays_in_float_is_a_fall_back_and_one_that_does_not_is_none(save, empty):
    # uint8 with zero point 0 after a ReLU is fused on every CPU; int16 never is.
    fused = compile_with(save, empty, quantized_net(dtype="uint8"))
    assert "conv" not in {e.node for e in fused.events}
    slow = quantized_net(dtype="int16", opset=21)
    engine = BACKEND.compile(save(slow, "slow.onnx"), make_target(), make_rules("onnxruntime"), empty("slow"), 1)
    assert {e.node for e in engine.events if e.kind == "fallback"} == {"conv", "gemm"}
    assert engine.events[0].message.startswith("0 of 2 ")


def test_an_operator_that_onnxruntime_does_not_have_is_named(save, empty):
    net = conv_net()
    net.graph.node[1].op_type, net.graph.node[1].domain = "Mystery", "ai.example"
    net.opset_import.append(onnx.helper.make_opsetid("ai.example", 1))
    for name in ("onnxruntime", "ort-mobile"):
        with pytest.raises(BackendError, match="Mystery"):
            BACKENDS[name].compile(save(net), make_target(), make_rules(name), empty(name), 1)


def test_external_weights_travel_with_the_graph(empty, tmp_path):
    path = tmp_path / "big.onnx"
    (tmp_path / "weights").mkdir()
    onnx.save(conv_net(), path, save_as_external_data=True, location="weights/big.data", size_threshold=256)
    engine = BACKEND.compile(path, make_target(), make_rules("onnxruntime"), empty(), 1)
    assert {str(p.relative_to(engine.directory)) for p in engine.directory.rglob("*") if p.is_file()} == {
        "model.onnx",
        "weights/big.data",
    }
    x = np.ones((1, 3, 6, 6), "float32")
    with BACKEND.load(engine, 1) as opened:
        expected = ReferenceEvaluator(conv_net()).run(None, {"image": x})[0]
        np.testing.assert_allclose(opened.infer({"image": x})["logits"], expected, atol=1e-4)


@pytest.mark.parametrize("location", ["../outside.data", "/etc/hostname", "missing.data"])
def test_external_weights_outside_the_folder_are_refused(save, empty, tmp_path, location):
    (tmp_path.parent / "outside.data").write_bytes(b"secret")
    net = conv_net()
    tensor = net.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, location)
    tensor.ClearField("raw_data")
    wanted = "is missing" if location == "missing.data" else r"outside (its|the model's) folder"
    for name in ("onnxruntime", "ort-mobile", "tensorrt"):
        with pytest.raises(BackendError, match=wanted):
            BACKENDS[name].compile(save(net), make_target(), make_rules(name), empty(name), 1)


def test_importing_onnxruntime_through_us_starts_no_telemetry(tmp_path):
    clean = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    code = "from edgeopt.agent.runners.onnxruntime import import_onnxruntime as take; take()"
    subprocess.run([sys.executable, "-c", code], env=clean | {"TMPDIR": str(tmp_path)}, check=True)
    assert list(tmp_path.iterdir()) == []
