"""ExecuTorch's delegates for hardware that is not here: what is lowered, what is refused, what is said of it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import pytest
from backend_nets import conv_net, make_rules, make_target, quantized_net

from edgeopt.backends.executorch_delegates import ELSEWHERE, Lowered, delegate_of, lower_elsewhere
from edgeopt.backends.executorch_qnn import lower_to_qnn
from edgeopt.backends.registry import BACKENDS
from edgeopt.backends.support import installed_version
from edgeopt.core.errors import BackendError
from edgeopt.targets.load import find_target

BACKEND = BACKENDS["executorch"]
needs_executorch = pytest.mark.skipif(
    BACKEND.available().version is None, reason=f"executorch is not installed: {BACKEND.available().how_to_get}"
)


@pytest.fixture
def lower(save, empty):
    def run(net, delegate):
        return BACKEND.compile(
            save(net), make_target(), make_rules("executorch", options={"delegate": delegate}), empty(), 1
        )

    return run


def test_without_the_option_it_is_xnnpack():
    assert delegate_of({}) is delegate_of({"delegate": "xnnpack"}) is None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vulcan", "no such delegate. Received: delegate: vulcan. Use one of xnnpack, coreml, vulkan, qnn"),
    ],
)
def test_a_delegate_that_cannot_be_lowered_to_is_refused_before_any_work(save, name, message):
    with pytest.raises(BackendError, match=message):
        BACKEND.check(save(conv_net()), make_target(), make_rules("executorch", options={"delegate": name}))


def test_what_stays_outside_is_named_with_the_share_that_was_taken():
    event = Lowered(data=b"", parts=2, macs=200, taken_macs=150, outside=("erf", "topk")).event(ELSEWHERE["vulkan"])
    assert event.kind == "fallback"
    assert event.message.startswith(
        "Vulkan took 75.00 % of the multiplications, in 2 parts; outside, in portable kernels: erf, topk."
    )
    assert Lowered(data=b"", parts=1, macs=200, taken_macs=200, outside=()).event(ELSEWHERE["coreml"]).kind == "note"


def test_without_a_multiplication_no_share_is_claimed():
    message = Lowered(data=b"", parts=1, macs=0, taken_macs=0, outside=()).event(ELSEWHERE["coreml"]).message
    assert message.startswith("Core ML took what it knows, in 1 part.")


@pytest.mark.parametrize("name", ["android-vulkan", "iphone-executorch", "snapdragon-8gen2-executorch"])
def test_their_targets_ask_for_them_and_offer_no_int8(name):
    target = find_target(name)
    (rules,) = target.runtimes
    assert delegate_of(rules.options) in ELSEWHERE.values()
    assert rules.precisions == ("fp32",)
    assert target.quantization is None


@needs_executorch
@pytest.mark.parametrize("name", ["vulkan", "coreml"])
def test_a_float_graph_becomes_a_program_that_only_its_device_runs(lower, name):
    if name == "coreml":
        pytest.importorskip("coremltools", reason="pip install 'edgeopt[coreml]'")
    engine = lower(conv_net(), name)
    assert engine.status == "not_built"
    assert engine.why_not_built == f"converted, not run: needs {ELSEWHERE[name].runs_on}"
    assert engine.next_command == ELSEWHERE[name].next_command
    assert engine.path.stat().st_size > 1000
    assert any(
        event.message.startswith(f"{ELSEWHERE[name].title} took 100.00 % of the multiplications")
        for event in engine.events
    )


@pytest.mark.long
@needs_executorch
@pytest.mark.parametrize("name", ["vulkan", "coreml"])
@pytest.mark.parametrize(
    ("text", "weight", "macs"),
    [
        ("(float[n, 3, 8] x) => (float[n, 4, 6] y) { y = Conv(x, w) }", (4, 3, 3), 4 * 6 * 3 * 3),
        ("(float[1, 4, 8, 8] x) => (float[1, 4, 6, 6] y) { y = Conv<group = 4>(x, w) }", (4, 1, 3, 3), 4 * 36 * 9),
        (
            "(float[1, 3, 8, 8] x) => (float[1, 4, 16, 16] y) { y = ConvTranspose<strides = [2, 2]>(x, w) }",
            (3, 4, 2, 2),
            3 * 64 * 4 * 4,
        ),
        ("(float[n, 16, 8] x) => (float[n, 16, 4] y) { y = MatMul(x, w) }", (8, 4), 16 * 4 * 8),
        (
            "(float[n, 4, 8, 8] x) => (float[n, 4, 8, 8] y) { t = Transpose<perm = [0, 1, 3, 2]>(x) y = MatMul(x, t) }",
            None,
            4 * 8 * 8 * 8,
        ),
    ],
    ids=["conv1d", "depthwise", "transposed", "linear", "of two activations"],
)
def test_every_product_is_counted_whichever_way_the_delegate_writes_it(tmp_path, name, text, weight, macs):
    if name == "coreml":
        pytest.importorskip("coremltools", reason="pip install 'edgeopt[coreml]'")
    from edgeopt.backends.torch_program.build import build_program

    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> g {text}')
    if weight:
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(weight, "float32"), "w"))
    onnx.save(model, tmp_path / "net.onnx")
    found = lower_elsewhere(build_program(tmp_path / "net.onnx", 2, "ExecuTorch"), ELSEWHERE[name])
    assert (found.macs, found.taken_macs) == (macs, macs)  # n is two; Vulkan takes 2-D convolutions of one sample only


@pytest.mark.long
@needs_executorch
def test_a_product_that_stays_outside_lowers_the_share(save, empty):
    """Vulkan takes a 2-D convolution of one sample only: of two, the linear layer's 1440 of 9216 products are left to it."""
    rules = make_rules("executorch", options={"delegate": "vulkan"})
    (event,) = [
        e for e in BACKEND.compile(save(conv_net()), make_target(), rules, empty(), 2).events if "took" in e.message
    ]
    assert event.kind == "fallback"
    assert event.message.startswith(
        "Vulkan took 15.62 % of the multiplications, in 1 part; outside, in portable kernels: convolution"
    )


needs_qnn = pytest.mark.skipif(
    not (installed_version("onnxruntime-qnn") or "").startswith("2.5."), reason="pip install 'edgeopt[executorch-qnn]'"
)


@needs_executorch
@needs_qnn
def test_qnn_compiles_for_a_chip_in_a_process_of_its_own(lower):
    engine = lower(conv_net(), "qnn")
    assert (engine.status, engine.why_not_built) == (
        "not_built",
        f"converted, not run: needs {ELSEWHERE['qnn'].runs_on}",
    )
    assert engine.path.stat().st_size > 1000
    told = [event.message for event in engine.events]
    assert any(message.startswith("QNN took 100.00 % of the multiplications, in 1 part") for message in told)
    assert "The Hexagon computes this float32 graph in float16." in told


@needs_executorch
@needs_qnn
def test_an_unknown_chip_is_refused_with_those_that_are_known(save):
    with pytest.raises(BackendError, match=r"no such chip. Received: soc: SM8555. Known: SM8550"):
        lower_to_qnn(save(conv_net()), 1, "SM8555")


@pytest.mark.parametrize(("version", "words"), [(None, "none installed"), ("2.7.0", "onnxruntime-qnn 2.7.0")])
def test_libraries_of_another_version_are_named_before_anything_is_started(save, monkeypatch, version, words):
    monkeypatch.setattr("edgeopt.backends.executorch_qnn.installed_version", lambda _: version)
    monkeypatch.setattr("edgeopt.backends.executorch_qnn.subprocess.run", lambda *_, **__: pytest.fail("started"))
    with pytest.raises(BackendError, match=rf"Received: {words}.*edgeopt\[executorch-qnn\]"):
        lower_to_qnn(save(conv_net()), 1, "SM8550")


def test_a_process_that_dies_is_told_with_its_last_words(save, monkeypatch, tmp_path):
    module = "edgeopt.backends.executorch_qnn"
    monkeypatch.setattr(f"{module}._libraries", lambda: tmp_path)
    died = subprocess.CompletedProcess([], -6, "", "[INFO] fine\n[ERROR] Failed to create device_handle\n")
    monkeypatch.setattr(f"{module}.subprocess.run", lambda *_, **__: died)
    with pytest.raises(BackendError, match=r"cannot lower the graph to QNN.*Failed to create device_handle"):
        lower_to_qnn(save(conv_net()), 1, "SM8550")


@needs_executorch
def test_a_quantized_graph_is_refused_with_what_takes_it(lower):
    with pytest.raises(
        BackendError, match=r"Vulkan delegate is given float graphs only.*quantized layers.*delegate xnnpack"
    ):
        lower(quantized_net(), "vulkan")


@needs_executorch
def test_a_package_that_the_delegate_needs_is_named(lower, monkeypatch):
    monkeypatch.setitem(sys.modules, "executorch.backends.apple.coreml.partition", None)
    with pytest.raises(
        BackendError, match=r"Core ML delegate needs coremltools, which is not installed.*edgeopt\[coreml\]"
    ):
        lower(conv_net(), "coreml")
