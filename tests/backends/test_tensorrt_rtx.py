"""TensorRT-RTX really parses and compiles here, without a GPU: the only NVIDIA software in these tests that is real."""

from __future__ import annotations

import json
import os
import re
import subprocess

import pytest
from backend_nets import conv_net, make_rules, make_target, quantized_net, two_input_net
from onnx import helper, numpy_helper

from edgeopt.agent.runners import engine_passport
from edgeopt.backends import tensorrt_build, tensorrt_folder
from edgeopt.backends.coverage.trt import tensorrt_coverage
from edgeopt.backends.graphs import read_graph
from edgeopt.backends.registry import BACKENDS
from edgeopt.backends.tensorrt import NEXT_COMMAND, PLAN, RTX_ENGINE
from edgeopt.backends.tensorrt_build import MULTIPLIERS, RTX_CAPABILITIES, rtx_version, run_build
from edgeopt.core.errors import BackendError

BACKEND = BACKENDS["tensorrt"]
RULES = make_rules("tensorrt")
needs_rtx = pytest.mark.skipif(
    rtx_version() is None, reason="tensorrt-rtx is not installed: pip install 'edgeopt[tensorrt-rtx]'"
)


@needs_rtx
@pytest.mark.parametrize("net", [conv_net, quantized_net, two_input_net])
def test_a_jetsons_engine_is_proved_by_proxy_and_not_kept(net, save, empty):
    engine = BACKEND.compile(save(net()), make_target("jetson", compute_capability=87), RULES, empty(), 1)
    assert (engine.status, engine.entry, engine.next_command) == ("not_built", PLAN, NEXT_COMMAND)
    assert not engine.path.exists()
    assert not (engine.directory / RTX_ENGINE).exists()
    assert any("stand-in" in e.message and "not run on the target" in e.message for e in engine.events)


@needs_rtx
@pytest.mark.parametrize("capability", [86, 89])
def test_an_rtx_targets_engine_is_its_own_and_kept(capability, save, empty):
    target = make_target("rtx", compute_capability=capability)
    engine = BACKEND.compile(save(quantized_net()), target, RULES, empty(), 1)
    assert (engine.status, engine.entry, engine.next_command) == ("built", RTX_ENGINE, None)
    assert engine.runtime_version == rtx_version()
    assert engine.options == {"module": "tensorrt_rtx"}
    # TensorRT-RTX numbers its own temporaries, now and then in another order: two builds need not be byte-identical.
    assert engine.path.stat().st_size > (engine.directory / "model.onnx").stat().st_size
    assert not (engine.directory / PLAN).exists()


@needs_rtx
@pytest.mark.long
@pytest.mark.parametrize("capability", RTX_CAPABILITIES)
def test_every_generation_is_built_for_with_its_passport(capability, save, empty):
    rules = make_rules("tensorrt", options={"min_batch": 1, "opt_batch": 4, "max_batch": 16})
    engine = BACKEND.compile(save(quantized_net()), make_target(compute_capability=capability), rules, empty(), 4)
    assert engine.status == "built"
    passport = json.loads((engine.directory / f"{RTX_ENGINE}.json").read_text())
    assert (passport["module"], passport["tensorrt"]) == ("tensorrt_rtx", rtx_version())
    assert (passport["compute_capability"], passport["bytes"]) == (capability, engine.path.stat().st_size)
    assert any(e.message.startswith("2 of 2 quantized") for e in engine.events)


@needs_rtx
def test_a_truncated_engine_is_refused_before_tensorrt_sees_it(save, empty):
    engine = BACKEND.compile(save(conv_net()), make_target(compute_capability=86), RULES, empty(), 1)
    size = engine.path.stat().st_size
    engine.path.write_bytes(engine.path.read_bytes()[:100])
    with pytest.raises(
        BackendError, match=r"model\.rtx\.engine has 100 bytes; .* truncated or was changed.*build it again"
    ):
        BACKEND.load(engine, None)
    passport = engine_passport.passport_of("tensorrt_rtx", rtx_version(), sm=86)
    message = engine_passport.refusal(engine.path, passport)
    assert message == f"{RTX_ENGINE} has 100 bytes; it was written with {size}: it is truncated or was changed."
    other = engine_passport.passport_of("tensorrt_rtx", rtx_version(), sm=89)
    engine.path.write_bytes(b"x" * size)
    assert engine_passport.refusal(engine.path, other) == (
        f"{RTX_ENGINE} was made with compute capability 86; here it is 89."
    )
    assert engine_passport.refusal(engine.path, passport) == ""


def broken(what):
    net = quantized_net(zero_point=3) if what == "zero_point" else conv_net()
    if what == "plugin_missing":
        net.graph.node[1].op_type = "StandInForNothing"
    return net


@needs_rtx
@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("plugin_missing", (), r"node 'relu' \(StandInForNothing\).*replace the operator in the model"),
        ("zero_point", (), r"node 'quantize_image'.*symmetric int8 only"),
        ("damaged_model", (), r"damaged or cut short"),
        ("wrong_compute_capability", ("--ahead-of-time", "87"), r"cannot build for SM 87 without that GPU"),
        ("dla", ("--ahead-of-time", "86", "--dla", "0"), r"no DLA core 0 here.*sees none.*--no-dla"),
    ],
)
def test_the_real_thing_fails_in_the_kinds_of_the_table(kind, arguments, message, save, tmp_path):
    file = save(broken(kind))
    if kind == "damaged_model":
        file.write_bytes(file.read_bytes()[:200])
    output = str(tmp_path / "engine")
    report = run_build("--onnx", str(file), "--output", output, "--module", "tensorrt_rtx", *arguments)
    assert report.kind == kind
    assert re.search(message, report.error), report.error
    assert not list(tmp_path.glob("engine*"))


@needs_rtx
@pytest.mark.skipif(tensorrt_build.local_gpu() is not None, reason="there is a GPU here")
def test_an_rtx_engine_does_not_open_without_its_gpu(save, empty):
    engine = BACKEND.compile(save(conv_net()), make_target(compute_capability=86), RULES, empty(), 1)
    with pytest.raises(BackendError, match=r"TensorRT (is not usable here|cannot open model\.rtx\.engine)"):
        BACKEND.load(engine, None)


@needs_rtx
def test_int8_coverage_is_read_from_the_compiled_kernels(save, empty):
    engine = BACKEND.compile(save(quantized_net()), make_target(compute_capability=86), RULES, empty(), 1)
    assert any(e.message.startswith("2 of 2 quantized") for e in engine.events)
    slow = BACKEND.compile(
        save(quantized_net(weight_axis=1)), make_target(compute_capability=86), RULES, empty("slow"), 1
    )
    assert {e.node for e in slow.events if e.kind == "fallback"} == {"conv"}
    assert [(op.node, op.runs_in) for op in engine.coverage.ops] == [("conv", "int8"), ("gemm", "int8")]
    assert not engine.coverage.proxy
    outside = slow.coverage.ops[0]
    assert (outside.runs_in, outside.cause) == ("float", "The scales of its weight lie along axis 1, not 0.")


@needs_rtx
def test_coverage_for_another_gpu_than_the_targets_is_a_stand_in(save, empty):
    engine = BACKEND.compile(save(quantized_net()), make_target(compute_capability=87), RULES, empty(), 1)
    assert engine.coverage.proxy
    assert "SM 86, a stand-in for the target's" in engine.coverage.how


@needs_rtx
def test_the_parsers_first_line_is_in_the_finding(save):
    net = conv_net()
    net.graph.node[1].op_type = "StandIn_TRT"
    findings = BACKEND.check(save(net), make_target(), RULES)
    assert [(f.severity, f.rule) for f in findings] == [("error", "TRT020")]
    assert "'relu' (StandIn_TRT)" in findings[0].message
    assert "cudaError" not in findings[0].message


@needs_rtx
def test_a_graph_that_only_the_parser_refuses_stops_compile(save, empty):
    net = conv_net()
    net.graph.node[1].op_type = "StandIn_TRT"
    with pytest.raises(BackendError, match=r"TensorRT-RTX .* refuses the graph.*StandIn_TRT"):
        BACKEND.compile(save(net), make_target(compute_capability=87), RULES, empty(), 1)


@needs_rtx
def test_a_capability_that_cannot_be_built_for_lists_those_that_can(save, tmp_path):
    arguments = ("--onnx", str(save(conv_net())), "--output", str(tmp_path / "e"), "--module", "tensorrt_rtx")
    report = run_build(*arguments, "--ahead-of-time", "87")
    assert "cannot build for SM 87" in report.error
    for capability in RTX_CAPABILITIES:
        assert f"SM{capability}" in report.error


@needs_rtx
@pytest.mark.parametrize("net", [conv_net, quantized_net])
def test_an_engine_is_built_with_the_flag_for_sparse_weights(net, save, empty):
    made = net()
    (weight,) = [tensor for tensor in made.graph.initializer if tensor.name == "f"]
    values = numpy_helper.to_array(weight).reshape(-1, 4, 5).copy()
    values[:, 1:3] = 0
    weight.CopyFrom(numpy_helper.from_array(values.reshape(-1, 5), "f"))
    made.graph.node[-1].metadata_props.add(key="edgeopt.sparsity", value="2:4")
    engine = BACKEND.compile(save(made), make_target("rtx", compute_capability=86), RULES, empty(), 1)
    assert engine.status == "built"
    assert "--sparsity=enable" in (engine.directory / "trtexec.sh").read_text()


@needs_rtx
def test_the_largest_batch_is_in_the_profile(save, empty):
    rules = make_rules("tensorrt", options={"max_batch": 64})
    engine = BACKEND.compile(save(conv_net()), make_target(compute_capability=86), rules, empty(), 16)
    assert engine.status == "built"
    assert "--maxShapes=image:64x3x6x6" in (engine.directory / "trtexec.sh").read_text()


def test_without_any_tensorrt_the_folder_says_that_only_our_rules_checked_it(save, empty, monkeypatch):
    monkeypatch.setattr("edgeopt.backends.tensorrt.rtx_version", lambda: None)
    engine = BACKEND.compile(save(conv_net()), make_target(compute_capability=86), RULES, empty(), 1)
    assert engine.status == "not_built"
    assert [e.message for e in engine.events] == [
        "engine/trtexec.sh is the same build with trtexec.",
        "Checked by edgeopt's rules only: for NVIDIA's own parser, pip install 'edgeopt[tensorrt-rtx]'.",
    ]
    with pytest.raises(BackendError, match=r"not built.*On the device.*build_engine\.py --verify"):
        BACKEND.load(engine, None)


def test_trtexecs_line_is_exact(save, empty):
    engine = BACKEND.compile(save(two_input_net()), make_target(), RULES, empty(), 2)
    script = engine.directory / "trtexec.sh"
    assert os.access(script, os.X_OK)
    done = subprocess.run(
        ["sh", str(script)], env={**os.environ, "TRTEXEC": "echo"}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [
        "--onnx=model.onnx",
        "--stronglyTyped",
        "--saveEngine=model.plan",
        "--timingCacheFile=timing.cache",
        "--memPoolSize=workspace:1024M",
        "--profilingVerbosity=detailed",
        "--exportLayerInfo=layers.json",
        "--minShapes=token:1,dense:1x4",
        "--optShapes=token:2,dense:2x4",
        "--maxShapes=token:8,dense:8x4",
    ]


def test_a_fixed_batch_needs_no_shapes(save, empty):
    engine = BACKEND.compile(save(conv_net(4)), make_target(), RULES, empty(), 1)
    assert "Shapes" not in (engine.directory / "trtexec.sh").read_text()


@pytest.mark.parametrize(
    "options",
    [{"max_batch": 2}, {"min_batch": 5}, {"min_batch": 0}, {"opt_batch": 9}, {"min_batch": 4, "opt_batch": 3}],
    ids=str,
)
def test_batches_out_of_order_are_refused(options, save, empty):
    rules = make_rules("tensorrt", options=options)
    with pytest.raises(BackendError, match=r"profile are not in order\..*compiled for batch 4.*hold export\.batch"):
        BACKEND.compile(save(conv_net()), make_target(), rules, empty(), 4)


def test_an_input_whose_name_a_shell_would_read_is_quoted(save, empty):
    net = conv_net()
    net.graph.input[0].name = net.graph.node[0].input[0] = "a $(touch hacked); b"
    engine = BACKEND.compile(save(net), make_target(), RULES, empty(), 1)
    subprocess.run(
        ["sh", str(engine.directory / "trtexec.sh")], env={**os.environ, "TRTEXEC": "echo"}, check=True, timeout=60
    )
    assert not (engine.directory / "hacked").exists()


def test_a_crash_of_the_build_is_an_error_and_not_ours(monkeypatch, tmp_path):
    script = tmp_path / "crash.py"
    script.write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setattr(tensorrt_folder, "ENGINE_SCRIPT", script)
    monkeypatch.setattr(tensorrt_folder, "FOLDER_FILES", (script,))
    with pytest.raises(BackendError, match=r"crashed.*SIGSEGV"):
        run_build()
    script.write_text("raise SystemExit('out of luck')")
    with pytest.raises(BackendError, match=r"without a report.*out of luck"):
        run_build()


def test_tensorrt_on_another_gpu_than_the_targets_does_not_build(save, empty, monkeypatch):
    monkeypatch.setattr("edgeopt.backends.tensorrt.tensorrt_version", lambda: "10.3.0")
    monkeypatch.setattr("edgeopt.backends.tensorrt.rtx_version", lambda: None)
    monkeypatch.setattr("edgeopt.backends.tensorrt.local_gpu", lambda: 89)
    engine = BACKEND.compile(save(conv_net()), make_target(compute_capability=87), RULES, empty(), 1)
    assert engine.status == "not_built"
    assert "this machine has SM 89 and the target has SM 87" in engine.events[1].message


def test_the_gpu_is_looked_for_in_another_process():
    found = tensorrt_build.local_gpu()
    assert found is None or found >= 50


@pytest.mark.parametrize(
    ("kernel", "runs_in"),
    [
        ({"type": "gemm", "onnx": ["conv", "x"], "int8": True}, "int8"),
        ({"type": "gemm", "onnx": ["conv"], "int8": False}, "float"),
        ({"type": "kgen", "onnx": ["conv"], "int8": True}, ""),  # it does not multiply
    ],
)
def test_only_a_kernel_that_multiplies_tells_what_a_node_runs_in(save, kernel, runs_in):
    graph = read_graph(save(quantized_net()))
    told = tensorrt_coverage(
        graph, [kernel, {"type": "gemm", "onnx": [], "int8": True}], MULTIPLIERS, "a dump", proxy=True
    )
    assert [(op.node, op.runs_in) for op in told.ops] == [("conv", runs_in), ("gemm", "")]
    assert told.proxy


def test_without_a_dump_there_is_no_coverage(save):
    assert tensorrt_coverage(read_graph(save(quantized_net())), [], MULTIPLIERS, "a dump", proxy=True) is None


def test_a_plug_in_operator_is_found_before_anything_is_built(save, empty):
    net = conv_net()
    net.graph.node[1].op_type, net.graph.node[1].domain = "Mystery", "ai.example"
    net.opset_import.append(helper.make_opsetid("ai.example", 1))
    folder = empty()
    with pytest.raises(BackendError, match=r"TRT009 at relu: ai\.example::Mystery"):
        BACKEND.compile(save(net), make_target(), RULES, folder, 1)
    assert not list(folder.iterdir())
