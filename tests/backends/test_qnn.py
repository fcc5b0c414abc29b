"""QNN: a context binary per Hexagon architecture, and its numbers in Qualcomm's simulator."""

from __future__ import annotations

import importlib.util

import numpy as np
import onnx
import pytest
from backend_nets import conv_net, make_rules, make_target, quantized_net
from onnx.reference import ReferenceEvaluator

from edgeopt.backends import qnn
from edgeopt.backends.registry import BACKENDS
from edgeopt.core.errors import BackendError

BACKEND = BACKENDS["qnn"]
IMAGE = np.random.default_rng(0).normal(size=(2, 3, 6, 6)).astype("float32")
needs_qnn = pytest.mark.skipif(importlib.util.find_spec("onnxruntime_qnn") is None, reason=qnn.HOW_TO_GET)


@pytest.fixture
def build(save, empty):
    """Compile for an architecture at a batch of 2."""

    def run(net, arch=75, folder="engine"):
        rules = make_rules("qnn", options={"htp_arch": arch})
        return BACKEND.compile(save(net), make_target(), rules, empty(folder), 2)

    return run


def run(engine):
    with BACKEND.load(engine, 1) as opened:
        return opened.infer({"image": IMAGE})["logits"]


@needs_qnn
@pytest.mark.long
@pytest.mark.parametrize("arch", qnn.ARCHITECTURES)
def test_each_architecture_gets_a_binary_of_its_own_whose_numbers_are_the_graphs(build, arch):
    net = quantized_net(dtype="uint8")
    engine = build(net, arch)
    assert {p.name for p in engine.directory.iterdir()} == {"model.onnx", "model_qnn.bin"}
    kinds = [node.op_type for node in onnx.load(engine.path).graph.node]
    assert kinds.count("EPContext") == 1
    assert not {"Conv", "Gemm"} & set(kinds)
    assert engine.options["provider"]["htp_arch"] == str(arch)
    assert [e.kind for e in engine.events] == ["note"]
    assert f"4 of 4 nodes are in 1 context binary for Hexagon v{arch}" in engine.events[0].message
    assert "not run on a device" in engine.events[0].message
    # Hexagon rounds a hidden value by fixed-point multiplication: a few of 288 fall to the other side of an edge. Three
    # hidden steps (0.03) through the largest weight (63 × 0.003) are 0.6 % of the range; a wrong grid is off by 40 %.
    np.testing.assert_allclose(
        run(engine), ReferenceEvaluator(net).run(None, {"image": IMAGE})[0], atol=3 * 0.03 * 63 * 0.003
    )


@needs_qnn
@pytest.mark.long
def test_the_binary_of_one_architecture_is_not_the_binary_of_another(build):
    sizes = [build(conv_net(), arch, str(arch)).directory / "model_qnn.bin" for arch in (73, 81)]
    assert sizes[0].read_bytes() != sizes[1].read_bytes()


@needs_qnn
@pytest.mark.long
def test_signed_activations_are_refused_and_rightly_so(build, save):
    """The rule stands as long as the simulator computes such a graph wrongly."""
    net = quantized_net()
    findings = BACKEND.check(save(net, "signed.onnx"), make_target(), make_rules("qnn"))
    assert [(f.rule, f.node) for f in findings] == [("QNN003", "quantize_image"), ("QNN003", "quantize_hidden")]
    expected = ReferenceEvaluator(net).run(None, {"image": IMAGE})[0]
    assert np.abs(run(build(net)) - expected).max() > 0.1 * np.ptp(expected)


@needs_qnn
@pytest.mark.long
def test_what_qnn_does_not_take_stays_on_the_cpu_and_is_a_fall_back(build):
    net = conv_net()
    net.graph.node[1].op_type = "Erf"
    engine = build(net)
    assert sum(node.op_type == "EPContext" for node in onnx.load(engine.path).graph.node) == 2
    assert [(e.kind, e.node) for e in engine.events] == [("note", None), ("fallback", "relu")]
    assert engine.events[0].message.startswith("3 of 4 nodes are in 2 context binaries")
    assert engine.events[1].message == "QNN leaves it on the CPU (1 of 4 nodes)."
    np.testing.assert_allclose(run(engine), ReferenceEvaluator(net).run(None, {"image": IMAGE})[0], atol=1e-4)


@needs_qnn
@pytest.mark.long
def test_a_graph_of_which_qnn_takes_nothing_is_an_error(build):
    node = onnx.helper.make_node("Det", ["image"], ["logits"])
    graph = onnx.helper.make_graph(
        [node],
        "net",
        [onnx.helper.make_tensor_value_info("image", onnx.TensorProto.DOUBLE, ["batch", 3, 6, 6])],
        [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.DOUBLE, ["batch", 3])],
    )
    with pytest.raises(BackendError, match=r"QNN (takes no node of this graph|cannot compile the graph)"):
        build(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9))


@needs_qnn
@pytest.mark.long
def test_a_missing_binary_is_refused_when_the_engine_is_opened(build):
    engine = build(conv_net())
    (engine.directory / "model_qnn.bin").unlink()
    with pytest.raises(BackendError, match=r"QNN cannot open model\.onnx"):
        BACKEND.load(engine, 1)


def test_a_dimension_that_varies_beyond_the_batch_is_found(save):
    net = conv_net()
    net.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    findings = BACKEND.check(save(net), make_target(), make_rules("qnn"))
    assert [(f.severity, f.rule) for f in findings] == [("error", "QNN002")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"htp_arch": 66}, r"for that Hexagon architecture\. Received: 66\. Use one of 73, 75, 79, 81"),
        ({"htp_performance_mode": "fast"}, r"no such performance mode\. Received: 'fast'\. Use one of default, burst"),
        ({"htp_arch": "75"}, r"'htp_arch' of the runtime qnn must be of type int"),
        ({"arch": 75}, r"'arch'\. Known: htp_arch"),
    ],
)
def test_a_wrong_option_is_refused_before_any_work(save, options, message):
    with pytest.raises(BackendError, match=message):
        BACKEND.check(save(conv_net()), make_target(), make_rules("qnn", options=options))


def test_an_absent_package_is_said_with_how_to_get_it(save, empty, monkeypatch):
    monkeypatch.setattr(qnn, "installed_version", lambda *names: None)
    with pytest.raises(BackendError, match=r"runtime qnn is not installed\. Install it: pip install 'edgeopt\[qnn\]'"):
        BACKEND.compile(save(conv_net()), make_target(), make_rules("qnn"), empty(), 1)


def test_a_compiler_that_does_not_end_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(qnn, "_TIMEOUT_S", 0.01)
    with pytest.raises(BackendError, match="did not compile the graph within an hour"):
        qnn._compile(tmp_path / "m.onnx", tmp_path / "made.onnx", {})
