"""ExecuTorch's delegates for hardware that is not here: what is lowered, what is refused, what is said of it."""

from __future__ import annotations

import sys

import pytest
from backend_nets import conv_net, make_rules, make_target, quantized_net

from edgeopt.backends.executorch_delegates import ELSEWHERE, Lowered, delegate_of
from edgeopt.backends.registry import BACKENDS
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
        ("vulcan", "no such delegate. Received: delegate: vulcan. Use one of xnnpack, coreml, vulkan"),
        ("qnn", "Qualcomm's SDK only"),
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


@pytest.mark.parametrize("name", ["android-vulkan", "iphone-executorch"])
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
