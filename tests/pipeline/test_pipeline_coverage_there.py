"""Coverage is read where the engine runs: on another machine by its own runtime's profiler."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeopt.backends.registry import BACKENDS
from edgeopt.devices.local import LocalDevice
from edgeopt.pipeline.cache import StageCache
from edgeopt.pipeline.context import RunContext
from edgeopt.pipeline.coverage import with_macs
from edgeopt.pipeline.coverage_there import candidate_coverage
from edgeopt.pipeline.graphs import Graph
from edgeopt.targets.load import find_target

RUNTIMES = ("onnxruntime", "openvino")


class Elsewhere(LocalDevice):
    """This machine, taken for another one."""

    def demand(self, runtime, versions, module=""):
        """Has everything."""


def two_products(path):
    """x[N, 8, 64] · a[64, 64] in int8, and · b[64, 32] in float: 8 · 4096 and 8 · 2048 multiplications."""
    constants = {
        "s": np.float32(0.1),
        "z": np.uint8(128),
        "wz": np.int8(0),
        "a": np.resize(np.arange(-63, 64, dtype=np.int8), (64, 64)),
        "b": np.ones((64, 32), np.float32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"], "q"),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"], "d"),
        helper.make_node("DequantizeLinear", ["a", "s", "wz"], ["ad"], "w"),
        helper.make_node("MatMul", ["xd", "ad"], ["h"], "first"),
        helper.make_node("MatMul", ["h", "b"], ["y"], "second"),
    ]
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 8, 32])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.fixture
def asked(tmp_path):
    """Asks for a runtime's coverage on a device."""

    def ask(runtime, device, *, ran=True, measured_here=True):
        pytest.importorskip(runtime, reason=f"pip install 'edgeopt[{runtime}]'")
        path = two_products(tmp_path / "model.onnx")
        (tmp_path / "engine").mkdir()
        target = find_target("local")
        rules = next(rules for rules in target.runtimes if rules.name == runtime)
        engine = BACKENDS[runtime].compile(path, target, rules, tmp_path / "engine", 1)
        engine = replace(engine, coverage=with_macs(engine.coverage, path, path))
        graph = Graph(path=path, reference=(), parity=[], events=[], layers=[], training=[], trials=[])
        built = SimpleNamespace(
            engine=engine,
            graph=graph,
            key="key",
            planned=SimpleNamespace(id=f"{runtime}-int8"),
        )
        plan = SimpleNamespace(measured_here=measured_here, recipe=SimpleNamespace(export=SimpleNamespace(batch=1)))
        context = RunContext(cache=StageCache(tmp_path / "cache"), host="here")
        where = (device, device.info())
        return candidate_coverage(context, plan, built, where, [np.ones((3, 8, 64), np.float32)], ran=ran)

    return ask


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_another_machines_own_kernels_are_no_stand_in(asked, runtime):
    section, (macs, _) = asked(runtime, Elsewhere())
    assert section.how.startswith(f"the kernels that {runtime}")
    assert {row.node: (row.runs_in, row.macs) for row in section.ops} == {
        "first": ("int8", 8 * 4096),
        "second": ("float32", 8 * 2048),
    }
    assert section.ops[1].cause == "Input and weight are float."
    assert macs.value == pytest.approx(100 * 4096 / 6144)
    assert macs.conditions["source"] == "runtime"


def test_a_machine_that_does_not_stand_for_the_target_is_a_stand_in(asked):
    section, (macs, _) = asked("onnxruntime", Elsewhere(), measured_here=False)
    assert (section.proxy, macs.conditions["source"]) == (True, "stand-in")


def test_what_did_not_run_there_was_read_here_and_is_a_stand_in(asked):
    section, _ = asked("onnxruntime", Elsewhere(), ran=False)
    assert section.proxy
    assert "on this machine" in section.how


def test_here_it_was_read_when_it_was_compiled(asked):
    section, _ = asked("onnxruntime", LocalDevice())
    assert not section.proxy
    assert "the optimized graph and the profile" in section.how
