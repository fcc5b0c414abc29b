"""ONNX Runtime's mobile format: both styles, both architectures, and what providers of phones would take."""

from __future__ import annotations

import json
import platform
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from backend_nets import conv_net, make_rules, make_target, quantized_net
from onnx.reference import ReferenceEvaluator

from edgeopt.agent.runners import onnxruntime as runner
from edgeopt.backends import ort_mobile_tools as tools
from edgeopt.backends.registry import BACKENDS
from edgeopt.core.errors import BackendError
from edgeopt.graph.dialects import apply_dialect

ort = pytest.importorskip("onnxruntime", reason="pip install 'edgeopt[onnxruntime]'")

BACKEND = BACKENDS["ort-mobile"]
REPLAY = "session.enable_saved_runtime_optimizations"


@pytest.fixture
def build(save, empty):
    """Compile a net for an architecture with options."""

    def run(net, arch="aarch64", batch=1, folder="engine", **options):
        target = make_target(isa={"arch": arch})
        return BACKEND.compile(save(net), target, make_rules("ort-mobile", options=options), empty(folder), batch)

    return run


@pytest.fixture
def arm_net(save, tmp_path):
    """A net with Q/DQ as the ort-arm dialect writes it."""
    return onnx.load(apply_dialect("ort-arm", save(quantized_net(), "neutral.onnx"), tmp_path / "arm.onnx").path)


def image(count=4):
    return np.random.default_rng(0).normal(size=(count, 3, 6, 6)).astype(np.float32)


def plain_outputs(net, folder):
    """What the graph gives with no optimization at all."""
    path = folder / "plain.onnx"
    onnx.save(net, path)
    with runner.open_runner(path, {"graph_optimization_level": "disable"}, 1) as opened:
        return opened.infer({"image": image()})["logits"]


def kernels(path, config):
    """Outputs, and which operators ran, by ONNX Runtime's own profile."""
    options = runner.session_options(ort, {"config": config}, 1)
    options.enable_profiling = True
    options.profile_file_prefix = str(path.parent / "profile")
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    logits = session.run(None, {"image": image()})[0]
    events = json.loads(Path(session.end_profiling()).read_text())
    return logits, Counter(e["args"]["op_name"] for e in events if e["name"].endswith("_kernel_time"))


def notes(engine):
    return " ".join(event.message for event in engine.events)


def test_the_file_replays_its_optimizations_and_names_its_operators(build):
    engine = build(quantized_net())
    assert engine.options["config"][REPLAY] == "1"
    assert engine.options["config"]["session.intra_op.allow_spinning"] == "0"
    operators = (engine.directory / "required_operators.config").read_text()
    assert "ai.onnx;11;Conv" in operators
    assert '"inputs"' in operators  # reduced to the types used
    assert "#" not in operators
    assert engine.path.read_bytes()[4:8] == b"ORTM"


def test_an_int8_file_in_runtime_style_runs_in_int8_when_replayed_and_gives_what_its_graph_gives(
    build, arm_net, tmp_path
):
    engine = build(arm_net)
    with BACKEND.load(engine, 1) as opened:
        actual = opened.infer({"image": image()})["logits"]
    # one step of the hidden tensor through the largest weight
    assert np.abs(actual - plain_outputs(arm_net, tmp_path)).max() <= 0.03 * 63 * 0.003
    replayed, ran = kernels(engine.path, engine.options["config"])
    np.testing.assert_array_equal(replayed, actual)
    assert (ran["QLinearConv"], ran["Conv"] + ran["FusedConv"]) == (1, 0)
    _, unreplayed = kernels(engine.path, {})
    assert (unreplayed["QLinearConv"], unreplayed["Conv"]) == (0, 1)  # what the session option is for


@pytest.mark.parametrize("arch", ["aarch64", pytest.param("x86_64", marks=pytest.mark.long)])
def test_an_int8_file_in_fixed_style_runs_in_int8_without_any_session_option(build, arm_net, tmp_path, arch):
    engine = build(arm_net, arch, style="fixed")
    assert engine.options["style"] == "fixed"
    assert engine.options["platform"] == {"aarch64": "arm", "x86_64": "amd64"}[arch]
    assert REPLAY not in engine.options["config"]
    assert "replays" not in notes(engine)
    actual, ran = kernels(engine.path, {})
    assert (ran["QLinearConv"], ran["Conv"] + ran["FusedConv"]) == (1, 0)
    assert np.abs(actual - plain_outputs(arm_net, tmp_path)).max() <= 0.03 * 63 * 0.003
    assert "ai.onnx;11;Conv" not in (engine.directory / "required_operators.config").read_text()


@pytest.mark.long
@pytest.mark.parametrize("arch", ["aarch64", "x86_64"])
@pytest.mark.parametrize("style", ["runtime", "fixed"])
def test_a_file_has_no_kernel_of_this_machine_alone(build, arch, style):
    engine = build(conv_net(), arch, style=style)
    assert "nchwc" not in (engine.directory / "required_operators.config").read_text()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the blocked layout exists on x86-64 alone")
def test_the_blocked_layout_is_there_where_it_is_asked_for_and_said_to_be(build):
    engine = build(conv_net(), "x86_64", style="fixed", blocked=True)
    assert "com.microsoft.nchwc" in (engine.directory / "required_operators.config").read_text()
    warnings = [event.message for event in engine.events if event.kind == "warning"]
    assert warnings == [
        "The .ort file holds the blocked layout of this machine's vectors: it fails on a CPU with other ones."
    ]
    with BACKEND.load(engine, 1) as opened:
        actual = opened.infer({"image": image()})["logits"]
    expected = ReferenceEvaluator(conv_net()).run(None, {"image": image()})[0]
    np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_the_usability_report_is_kept_and_read(build):
    engine = build(quantized_net())
    report = (engine.directory / "mobile_usability.txt").read_text()
    assert report.startswith("Checking model.onnx for usability with ORT Mobile.\nChecking NNAPI\n")
    uses = {use.provider: use for use in tools.parse_usability(report)}
    assert list(uses) == ["NNAPI", "CoreML NeuralNetwork", "CoreML MLProgram"]
    # The check's own figures at fixed sizes: NNAPI has Q/DQ, Core ML has not.
    assert uses["NNAPI"].verdict == "YES"
    assert uses["NNAPI"].fixed_sizes
    assert uses["NNAPI"].taken == uses["NNAPI"].nodes
    assert uses["CoreML MLProgram"].verdict == "NO"
    assert uses["CoreML MLProgram"].unsupported == ("DequantizeLinear", "QuantizeLinear")
    assert "NNAPI would take 13 of 13 nodes in 1 part once its sizes are fixed (worth a try: YES)" in notes(engine)
    assert "not run on a phone" in notes(engine)


def test_a_static_batch_is_what_nnapi_needs_and_computes_the_same(build, tmp_path):
    net = quantized_net()
    engine = build(net, static_batch=True, batch=4)
    assert [str(spec) for spec in (*engine.inputs, *engine.outputs)] == [
        "image:float32[4,3,6,6]",
        "logits:float32[4,5]",
    ]
    assert "NNAPI would take 13 of 13 nodes in 1 part (worth a try: YES)" in notes(engine)
    with BACKEND.load(engine, 1) as opened:
        actual = opened.infer({"image": image()})["logits"]
        with pytest.raises(BackendError, match=r"fixed batch of 4"):
            opened.resize(1)
    assert np.abs(actual - plain_outputs(net, tmp_path)).max() <= 0.03 * 63 * 0.003


@pytest.mark.long
def test_a_static_batch_is_for_graphs_whose_weights_are_in_a_file_too(empty, tmp_path):
    path = tmp_path / "big.onnx"
    onnx.save(conv_net(), path, save_as_external_data=True, location="big.data", size_threshold=256)
    rules = make_rules("ort-mobile", options={"static_batch": True, "style": "fixed"})
    engine = BACKEND.compile(path, make_target(isa={"arch": "aarch64"}), rules, empty(), 4)
    assert [spec.shape[0] for spec in (*engine.inputs, *engine.outputs)] == [4, 4]
    with BACKEND.load(engine, 1) as opened:
        actual = opened.infer({"image": image()})["logits"]
    expected = ReferenceEvaluator(conv_net()).run(None, {"image": image()})[0]
    np.testing.assert_allclose(actual, expected, atol=1e-4)


def test_a_static_batch_is_refused_where_more_than_the_batch_varies(build):
    net = conv_net()
    net.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    with pytest.raises(BackendError, match="static_batch is compiled for fixed sizes"):
        build(net, static_batch=True)


@pytest.mark.long
def test_the_threads_of_the_target_are_for_the_app_and_not_for_the_measurement(build):
    engine = build(conv_net(), threads=2)
    assert engine.options["threads"] == 2
    with BACKEND.load(engine, 1) as opened:
        assert opened.infer({"image": image()})["logits"].shape == (4, 5)


@pytest.mark.parametrize(
    ("arch", "options", "message"),
    [
        ("aarch64", {"style": "Fixd"}, r"no such style\. Received: 'Fixd'\. Use one of runtime, fixed"),
        (
            "aarch64",
            {"style": "fixed", "blocked": True},
            r"for x86-64 alone\. Received: blocked with style 'fixed' for aa",
        ),
        ("x86_64", {"blocked": True}, r"blocked with style 'runtime' for x86_64\. Leave blocked out"),
        ("aarch64", {"threads": 0}, r"'threads' must be between 1 and 64\. Received: 0"),
        ("aarch64", {"threads": True}, r"'threads' of the runtime ort-mobile must be of type int"),
        ("aarch64", {"styl": "fixed"}, r"'styl'\. Known: style"),
    ],
)
def test_a_wrong_option_is_refused_before_any_work(save, arch, options, message):
    rules = make_rules("ort-mobile", options=options)
    with pytest.raises(BackendError, match=message):
        BACKEND.check(save(conv_net()), make_target(isa={"arch": arch}), rules)


def test_a_converter_that_writes_nothing_and_a_check_that_fails_are_errors(tmp_path, monkeypatch):
    monkeypatch.setattr(tools, "_run", lambda *_: "")
    with pytest.raises(BackendError, match=r"wrote no such file\. Received: model\.with_runtime_opt\.ort"):
        tools.convert(tmp_path, tmp_path, style="runtime", platform="arm", blocked=False)
    monkeypatch.undo()
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(BackendError, match="usability check for phones failed"):
        tools.check_usability(tmp_path)


def test_a_tool_that_does_not_end_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(tools, "_TIMEOUT_S", 0.01)
    with pytest.raises(BackendError, match="did not end within half an hour"):
        tools.check_usability(tmp_path)
