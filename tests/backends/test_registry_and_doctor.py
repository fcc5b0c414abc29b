"""The registry, the survey, and what backends share."""

from __future__ import annotations

import subprocess
import sys

import pytest
from backend_nets import conv_net, make_rules

from edgeopt.agent.runners.contract import first_useful_line
from edgeopt.backends import support
from edgeopt.backends.base import Availability
from edgeopt.backends.doctor import survey
from edgeopt.backends.graphs import read_graph
from edgeopt.backends.registry import BACKENDS
from edgeopt.core.errors import BackendError, EdgeOptError


def test_the_survey_lists_every_backend_and_imports_no_runtime():
    code = (
        "import sys; from edgeopt.backends.doctor import survey; survey();"
        "print([n for n in ('onnx', 'onnxruntime', 'openvino', 'tensorrt_rtx', 'torch') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    found = dict(survey())
    assert list(found) == ["coreml", "executorch", "litert", "onnxruntime", "openvino", "ort-mobile", "qnn", "tensorrt"]
    for availability in found.values():
        assert isinstance(availability, Availability)
        assert availability.how_to_get.startswith("pip install 'edgeopt[")
        assert availability.brings


def test_an_unknown_backend_lists_the_known_ones():
    with pytest.raises(EdgeOptError, match=r"no backend of that name.*'openvinoo'.*Known: openvino"):
        BACKENDS["openvinoo"]


def test_each_backend_carries_its_registered_name():
    assert {name: BACKENDS[name].name for name in BACKENDS} == {name: name for name in BACKENDS}


@pytest.mark.parametrize("name", ["coreml", "executorch", "litert", "onnxruntime", "openvino", "ort-mobile"])
def test_a_runtime_that_is_absent_says_how_to_get_it(name, save, empty, monkeypatch):
    module = f"edgeopt.backends.{name.replace('-', '_')}"
    backend = BACKENDS[name]
    monkeypatch.setattr(f"{module}.installed_version", lambda *_: None)
    assert backend.available().version is None
    with pytest.raises(BackendError, match=r"not installed.*pip install 'edgeopt\["):
        backend.compile(save(conv_net()), None, make_rules(name), empty(), 1)


def test_a_version_is_found_without_an_import():
    assert support.installed_version("surely-not-a-package", "pytest") == pytest.__version__
    assert support.installed_version("surely-not-a-package") is None


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Exception from a.cpp:8:\nCheck 'x' failed at b.cpp:3:\nno such file\n", "no such file"),
        ("[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Load model failed", "INVALID_PROTOBUF: Load model failed"),
        ("\n\n  first\nsecond", "first"),
        ("the reason:\n  a bad node", "the reason: a bad node"),
        ("Exception from a.cpp:8:", "Exception from a.cpp:8:"),
        ("", "str"),
        ("x" * 2000, "x" * 500),
    ],
)
def test_a_runtimes_message_is_cut_to_what_it_says(message, expected):
    assert first_useful_line(message) == expected


def test_a_graph_knows_its_inputs_and_its_quantized_nodes(save):
    from backend_nets import quantized_net

    graph = read_graph(save(quantized_net()))
    assert [str(spec) for spec in graph.inputs] == ["image:float32[batch,3,6,6]"]
    assert graph.quantized == ("conv", "gemm")
    assert graph.names_of("gemm") == {"gemm", "logits"}
    assert graph.opset == 20


def test_an_initializer_that_is_also_an_input_is_not_fed(save):
    net = conv_net()
    weight = net.graph.initializer[0]
    import onnx

    net.graph.input.append(onnx.helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims))
    assert [spec.name for spec in read_graph(save(net)).inputs] == ["image"]


def test_an_input_of_strings_is_refused(save):
    net = conv_net()
    net.graph.input[0].type.tensor_type.elem_type = 8
    with pytest.raises(BackendError, match="no usable type"):
        read_graph(save(net))
