"""ExecuTorch and LiteRT: the graph's own quantization in their int8 kernels, and what they leave, told."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from backend_nets import make_rules, make_target
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from edgeopt.backends.registry import BACKENDS
from edgeopt.core.errors import BackendError

ENTRIES = {"executorch": "model.pte", "litert": "model.tflite"}


@pytest.fixture(scope="module", params=sorted(ENTRIES))
def backend(request):
    made = BACKENDS[request.param]
    if made.available().version is None:
        pytest.skip(f"{request.param} is not installed: {made.available().how_to_get}")
    return made


@pytest.fixture(scope="module")
def residual(backend, tmp_path_factory):
    """Two int8 convolutions, a residual Add, a mean, and an Erf that no delegate takes in front of a float product."""
    folder = tmp_path_factory.mktemp(backend.name)
    rng = np.random.default_rng(7)
    tensors = {
        "w1": rng.integers(-127, 128, (8, 8, 3, 3)).astype(np.int8),
        "w2": rng.integers(-127, 128, (8, 8, 3, 3)).astype(np.int8),
        "ws": rng.uniform(0.0005, 0.001, 8).astype(np.float32),
        "wz": np.zeros(8, np.int8),
        "b": rng.normal(size=8).astype(np.float32),
        "s": np.float32(0.05),
        "z": np.int8(-10),
        "f": rng.normal(size=(8, 5)).astype(np.float32),
        "axes": np.array([2, 3], np.int64),
    }

    def pair(source, name):
        return [
            helper.make_node("QuantizeLinear", [source, "s", "z"], [f"{name}_q"], f"quantize_{name}"),
            helper.make_node("DequantizeLinear", [f"{name}_q", "s", "z"], [name], f"dequantize_{name}"),
        ]

    nodes = [
        *pair("image", "x"),
        helper.make_node("DequantizeLinear", ["w1", "ws", "wz"], ["w1_d"], "weight_1", axis=0),
        helper.make_node("DequantizeLinear", ["w2", "ws", "wz"], ["w2_d"], "weight_2", axis=0),
        helper.make_node("Conv", ["x", "w1_d", "b"], ["c1"], "conv_1", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "relu_1"),
        *pair("r1", "h1"),
        helper.make_node("Conv", ["h1", "w2_d"], ["c2"], "conv_2", pads=[1, 1, 1, 1]),
        *pair("c2", "h2"),
        helper.make_node("Add", ["h2", "x"], ["a"], "add"),
        *pair("a", "h3"),
        helper.make_node("ReduceMean", ["h3", "axes"], ["m"], "mean", keepdims=0),
        helper.make_node("Erf", ["m"], ["e"], "erf"),
        helper.make_node("MatMul", ["e", "f"], ["y"], "last"),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 8, 6, 6])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 5])
    values = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()]
    graph = helper.make_graph(nodes, "residual", [image], [output], values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.save(model, folder / "graph.onnx")
    (folder / "engine").mkdir()
    engine = backend.compile(folder / "graph.onnx", make_target(), make_rules(backend.name), folder / "engine", 1)
    return SimpleNamespace(model=model, engine=engine)


def test_the_engine_computes_the_graphs_own_quantization(backend, residual):
    """At most one step (0.05) of the last grid, averaged over 36 pixels, times the largest weight, separates them."""
    image = np.random.default_rng(1).normal(size=(4, 8, 6, 6)).astype(np.float32)
    expected = ReferenceEvaluator(residual.model).run(None, {"image": image})[0]
    with backend.load(residual.engine, 1) as runner:
        runner.resize(4)
        np.testing.assert_allclose(runner.infer({"image": image})["y"], expected, atol=0.01, rtol=0)


def test_every_quantized_product_is_proven_in_int8_and_the_float_one_is_not(residual):
    coverage = residual.engine.coverage
    found = {op.node: (op.runs_in, op.where, op.macs) for op in coverage.ops}
    assert found == {
        "conv_1": ("int8", "XNNPACK", 8 * 36 * 72),
        "conv_2": ("int8", "XNNPACK", 8 * 36 * 72),
        "last": ("float32", "XNNPACK", 40),
    }
    assert residual.engine.runtime_version in coverage.how
    assert not coverage.proxy


def test_an_operation_outside_the_delegate_is_an_event(backend, residual):
    left = [event for event in residual.engine.events if event.kind == "fallback"]
    if backend.name == "litert":  # its converter writes erf as a composition that XNNPACK or the built-in kernels take
        assert all("outside XNNPACK" in event.message for event in left)
        return
    assert [(event.node, event.message) for event in left] == [
        ("erf", "ExecuTorch runs erf outside XNNPACK, with its portable kernels.")
    ]
    assert any("parted into 2 XNNPACK delegates" in event.message for event in residual.engine.events)


def test_the_file_takes_and_gives_the_graphs_own_types(residual):
    assert [str(spec) for spec in residual.engine.inputs] == ["image:float32[1,8,6,6]"]
    assert [str(spec) for spec in residual.engine.outputs] == ["y:float32[1,5]"]


def test_a_batch_that_is_fixed_is_told(residual):
    assert any("compiled for a batch of 1" in event.message for event in residual.engine.events)


def test_a_manifest_of_another_engine_is_refused(backend, residual):
    wrong = {**residual.engine.options}
    wrong["inputs"] = [{**wrong["inputs"][0], "shape": [1, 8, 7, 7]}]
    with pytest.raises(BackendError, match="its manifest says"):
        backend.load(dataclasses.replace(residual.engine, options=wrong), 1)


def test_compiling_says_nothing_on_the_terminal(backend, residual, capfd):
    with backend.load(residual.engine, 2):
        pass
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err == ""


@pytest.mark.parametrize("name", sorted(ENTRIES))
def test_a_device_without_the_runtime_says_what_it_needs(name, tmp_path, monkeypatch):
    import importlib

    from edgeopt.agent.runners.contract import RunnerError

    runner = importlib.import_module(f"edgeopt.agent.runners.{name}")

    def absent():
        raise ImportError("No module named 'it'")

    monkeypatch.setattr(runner, f"import_{name}", absent)
    with pytest.raises(RunnerError, match="cannot be imported: No module named 'it'"):
        runner.open_runner(tmp_path / ENTRIES[name], {}, 1)
