"""The lint's corpus is put to the real runtimes: what the rules say is what happens.

An error is refused or computed wrongly; a layer that is said to run in float runs in float, and no other; what has no
error is taken, and computes what ONNX says.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import lint_truth
import onnx
import pytest
from lint_corpus import CASES
from lint_runtimes import RUNTIMES

from edgeopt.backends.graphs import read_graph
from edgeopt.backends.lint import lint, rules_of
from edgeopt.backends.lint.onnxruntime import BFLOAT16, NO_FLOAT64
from edgeopt.backends.lint.openvino import MISSING_OPS as OV_MISSING
from edgeopt.backends.lint.tensorrt import MISSING_OPS as TRT_MISSING
from edgeopt.backends.registry import BACKENDS
from edgeopt.backends.tensorrt_build import rtx_version
from edgeopt.targets.host import detect_host

VNNI = {"avx512_vnni", "avx_vnni"} & set(detect_host().features)
needs_vnni = pytest.mark.skipif(not VNNI, reason="the corpus's truth is that of an x86-64 CPU with VNNI")
needs_ort = pytest.mark.skipif(find_spec("onnxruntime") is None, reason="pip install 'edgeopt[onnxruntime]'")
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="pip install 'edgeopt[openvino]'")
needs_rtx = pytest.mark.skipif(rtx_version() is None, reason="pip install 'edgeopt[tensorrt-rtx]'")

# Outputs of int8 graphs: one rounding on another side moves a value by a step of the output's grid, 1/256 of its reach,
# or by one product; float16 has 11 bits. A wrong scale, zero point or axis moves it by a tenth and more.
WRONG = 0.02
# What ONNX's own evaluator does not compute as its specification says, or two runtimes leave open.
UNCOMPARED = {"op_max_pool_indices": "the reference evaluator counts indices otherwise"}
# Errors that a runtime at hand does not show, and why they are errors all the same.
HIDDEN = {
    "ORT001": "the runtime here may be newer than the target's",
    "OV001": "the runtime here may be newer than the target's, and checks no opset",
    "OV002": "edgeopt compiles fixed sizes; OpenVINO alone would take it",
    "TRT001": "taken, and wrong when it runs: that needs a GPU",
    "TPR001": "nothing in a newer opset need be new to a graph; edgeopt's table was not written for it",
    "TRT010": "TensorRT-RTX 1.7 reads newer opsets than the parsers of JetPack",
}
# Shown by the kernels for AMX tiles alone (the other graphs of their rules are shown by all).
WITH_TILES = {"shared_weight_both_ways"}
# Refused by ending the process: litert-torch 0.10's converter on a uint8 addition.
CRASHES = {("residual_uint8_one_side", "litert")}
# Warnings about what the proxy refuses and the real TensorRT takes.
PROXY_ONLY = {"TRT019": "TensorRT-RTX has NonZero as a plug-in that it does not bring; TensorRT 10 has a layer"}


def predict(name, runtime, tmp_path):
    path = tmp_path / "graph.onnx"
    model = CASES[name]()
    onnx.save(model, path)
    read = read_graph(path)
    rules, target = RUNTIMES[runtime]
    return model, read, lint(read, rules, target), rules_of(rules.name)


def hold(name, runtime, judgement, tmp_path, judges_outputs=True):
    """Compare what the rules say with what the runtime did."""
    model, read, found, rules = predict(name, runtime, tmp_path)
    errors = {f.rule for f in found if f.severity == "error"}
    bad = judgement.refused is not None or judgement.wrong > WRONG
    if errors:
        # A rule for all runtimes need not show on each: see the test below.
        own = {rule for rule in errors if not rule.startswith("GEN")} - set(HIDDEN)
        if name in WITH_TILES and "amx_int8" not in detect_host().features:
            return
        assert bad or not own, f"said to be an error, and taken: {own}"
        return
    if judgement.refused is not None and {f.rule for f in found} & set(PROXY_ONLY):
        return
    assert judgement.refused is None, "not said to be an error, and refused"
    if judges_outputs and name not in UNCOMPARED and not any(f.rule == "OV004" for f in found):
        assert judgement.wrong <= WRONG, "not said to be an error, and computed wrongly"
    said = {f.node for f in found if rules[f.rule].effect == "float"}
    said |= {n.name for n in model.graph.node if said & set(n.input)}  # TRT005 names the Q, not the layer behind it
    layers = set(read.quantized) & lint_truth.layers_of(model)
    assert judgement.in_float & layers == said & layers


@needs_vnni
@needs_ort
@pytest.mark.parametrize("name", sorted(CASES))
def test_onnxruntime_does_what_the_rules_say(name, tmp_path):
    hold(name, "onnxruntime", lint_truth.judge_onnxruntime(CASES[name](), tmp_path), tmp_path)


@needs_vnni
@needs_openvino
@pytest.mark.long
@pytest.mark.parametrize("name", sorted(CASES))
def test_openvino_does_what_the_rules_say(name, tmp_path):
    hold(name, "openvino", lint_truth.judge_openvino(CASES[name](), tmp_path), tmp_path)


@pytest.fixture(scope="module")
def rtx():
    return lint_truth.judge_tensorrt_rtx({name: make() for name, make in CASES.items()})


@needs_rtx
@pytest.mark.long
@pytest.mark.parametrize("name", sorted(CASES))
def test_nvidias_parser_and_builder_do_what_the_rules_say(name, rtx, tmp_path):
    hold(name, "tensorrt", rtx[name], tmp_path, judges_outputs=False)


@pytest.mark.long
@pytest.mark.parametrize("runtime", ["executorch", "litert"])
@pytest.mark.parametrize("name", sorted(CASES))
def test_xnnpacks_runtimes_do_what_the_rules_say(name, runtime, tmp_path):
    available = BACKENDS[runtime].available()
    if available.version is None:
        pytest.skip(f"{runtime} is not installed: {available.how_to_get}")
    if (name, runtime) in CRASHES:
        pytest.skip("the converter ends the process")
    judgement = lint_truth.judge_backend(CASES[name](), tmp_path, runtime, *RUNTIMES[runtime])
    hold(name, runtime, judgement, tmp_path)


@needs_vnni
@needs_ort
@needs_openvino
@pytest.mark.long
def test_what_is_an_error_for_all_is_one_for_some(tmp_path):
    for name in sorted(CASES):
        _, _, found, _ = predict(name, "openvino", tmp_path)
        if any(f.rule.startswith("GEN") and f.severity == "error" for f in found):
            judged = [
                judge(CASES[name](), tmp_path) for judge in (lint_truth.judge_onnxruntime, lint_truth.judge_openvino)
            ]
            assert any(each.refused is not None or not each.wrong <= WRONG for each in judged), name


@needs_openvino
def test_openvino_with_a_dynamic_batch_is_wrong_where_a_constant_is_expanded_to_it(tmp_path):
    model = CASES["expanded_token"]()
    dynamic, fixed = (lint_truth.judge_openvino(model, tmp_path, batch=batch) for batch in (None, 1))
    assert dynamic.wrong > 0.1
    assert fixed.wrong < 1e-5


@needs_ort
@pytest.mark.long
@pytest.mark.parametrize(
    "name",
    [
        "conv_arm",
        "conv_symmetric",
        "conv_symmetric_no_relu",
        "conv_uint8",
        "conv_uint8_float_bias",
        "depthwise_symmetric",
        "gemm_uint8_float_bias",
        "gemm_uint8_float_bias_quantized",
        "op_custom",
        "weight_in_blocks",
    ],
)
def test_the_mobile_converter_does_what_the_rules_say(name, tmp_path):
    from edgeopt.backends.registry import BACKENDS
    from edgeopt.core.errors import BackendError

    _, _, found, _ = predict(name, "ort-mobile", tmp_path)
    rules, target = RUNTIMES["ort-mobile"]
    (tmp_path / "engine").mkdir()
    refused = None
    try:
        BACKENDS["ort-mobile"].compile(tmp_path / "graph.onnx", target, rules, tmp_path / "engine", 1)
    except BackendError as error:
        refused = str(error)
    errors = [f.rule for f in found if f.severity == "error"]
    assert (refused is not None) == bool(errors), (refused, errors)


# Old operators, and those whose first input float64 never reaches.
RARE = {"Affine", "Crop", "ImageScaler", "ParametricSoftplus", "Scale", "ScaledTanh", "OneHot"}
RARE |= {"DequantizeLinear", "QuantizeLinear", "QLinearMatMul", "TfIdfVectorizer"}
_ORT_KERNELS = """
import onnx
from onnxruntime.capi import onnxruntime_pybind11_state as state
kernels = [k for k in state.get_all_opkernel_def() if k.provider == "CPUExecutionProvider" and not k.domain]
types = {}
for kernel in kernels:
    for kinds in dict(kernel.type_constraints).values():
        types.setdefault(kernel.op_name, set()).update(kinds)
bodies = {s.name for s in onnx.defs.get_all_schemas_with_history() if not s.domain
          and (s.has_function or s.has_context_dependent_function)}
onnx_own = {s.name for s in onnx.defs.get_all_schemas() if not s.domain}
types = {n: t for n, t in types.items() if n in onnx_own}  # contrib operators stand in ONNX's domain too
no_double = {n for n, t in types.items() if "tensor(float)" in t and "tensor(double)" not in t}
print(*sorted(no_double - bodies))
print(*sorted(n for n, t in types.items() if "tensor(bfloat16)" in t))
print(*sorted(types))
"""


@needs_ort
def test_the_list_of_operators_without_float64_is_onnxruntimes_own():
    done = subprocess.run([sys.executable, "-c", _ORT_KERNELS], capture_output=True, text=True, check=True)
    no_double, brain, known = (set(line.split()) for line in done.stdout.splitlines()[-3:])
    assert no_double - NO_FLOAT64 <= RARE
    assert NO_FLOAT64 & known <= no_double | _bodies()
    own = {schema.name for schema in onnx.defs.get_all_schemas() if not schema.domain}
    assert (brain & own) - BFLOAT16 == set()  # the provider's helpers (MemcpyToHost and others) stand in no file
    assert BFLOAT16 - brain <= {"Constant"}


def _bodies():
    return {
        s.name for s in onnx.defs.get_all_schemas_with_history() if s.has_function or s.has_context_dependent_function
    }


_OV_READS = """
import sys, onnx
from onnx import helper, TensorProto as P
from edgeopt.agent.runners.openvino import import_openvino
core, newest = import_openvino().Core(), {}
for s in onnx.defs.get_all_schemas_with_history():
    if not s.domain and not s.deprecated and s.since_version <= 24:
        newest[s.name] = max(newest.get(s.name, s), s, key=lambda one: one.since_version)
for name, s in sorted(newest.items()):
    count = max(1, s.min_input) if s.max_input else 0
    inputs = [f"i{j}" for j in range(count)]
    node = helper.make_node(name, inputs, [f"o{j}" for j in range(max(1, s.min_output))])
    given = [helper.make_tensor_value_info(i, P.FLOAT, [1, 2, 4, 4]) for i in inputs]
    graph = helper.make_graph([node], "g", given, [helper.make_tensor_value_info("o0", P.FLOAT, None)])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)]), sys.argv[1])
    try:
        core.read_model(sys.argv[1])
    except Exception as error:
        if "No conversion rule" in str(error):
            print(name)
"""


@needs_openvino
@pytest.mark.long
def test_the_list_of_operators_that_openvino_does_not_read_is_its_own(tmp_path):
    command = [sys.executable, "-c", _OV_READS, str(tmp_path / "op.onnx")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert set(done.stdout.split()) == OV_MISSING


_RTX_SUPPORTS = """
import onnx, tensorrt_rtx as trt
logger = trt.Logger(trt.Logger.ERROR)
builder = trt.Builder(logger)
network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
parser = trt.OnnxParser(network, logger)
names = {s.name for s in onnx.defs.get_all_schemas() if not s.domain}
print("LACKS", *sorted(n for n in names if not parser.supports_operator(n)))
"""


@needs_rtx
def test_the_list_of_operators_that_tensorrt_lacks_is_its_parsers_own():
    done = subprocess.run([sys.executable, "-c", _RTX_SUPPORTS], capture_output=True, text=True, check=True)
    lacks = next(set(line.split()[1:]) for line in done.stdout.splitlines() if line.startswith("LACKS"))
    integers = {"ConvInteger", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul"}
    assert lacks - integers == TRT_MISSING & {s.name for s in onnx.defs.get_all_schemas() if not s.domain}
