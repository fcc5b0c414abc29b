"""From the runtime's word to the report's figures: multiplications, layers' names, reasons, the engine's record."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeopt.bundle.document import LayerRow
from edgeopt.core.coverage import Coverage, ExecutedOp
from edgeopt.core.engine import Engine
from edgeopt.core.measurement import Measurement, not_measured
from edgeopt.core.spec import TensorSpec
from edgeopt.pipeline import records
from edgeopt.pipeline.coverage import coverage_figures, coverage_section, told_coverage, with_macs
from edgeopt.pipeline.graphs import Graph

PLANNED = Measurement(name="int8_macs_pct", value=100.0, unit="%", conditions={"source": "plan"})


def two_products(path, *, open_middle=False):
    """x[N, 8] · a[8, 16] · b[16, 4]: 128 and 64 multiplications."""
    constants = {"a": np.ones((8, 16), "f"), "b": np.ones((16, 4), "f")}
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"], "first"),
        helper.make_node("MatMul", ["h", "b"], ["y"], "second"),
    ]
    for node, fx in zip(nodes, ("linear", "linear_1"), strict=True):
        node.metadata_props.add(key="edgeopt.node", value=fx)
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, "rows", 8] if open_middle else [None, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def coverage(first="int8", second="float32", *, proxy=False, macs=(0, 0)):
    ops = tuple(
        ExecutedOp(
            node=node, op="MatMul", macs=count, runs_in=kind, cause="" if kind == "int8" else "Its input is float."
        )
        for node, kind, count in (("first", first, macs[0]), ("second", second, macs[1]))
    )
    return Coverage(ops=ops, how="the profile", proxy=proxy)


def graph_of(path, *reasons):
    """The portable graph with one quantizer's row per reason."""
    none = not_measured("sqnr_db", "dB", "not asked")
    rows = [
        LayerRow(name=f"net.{i}", op="linear", precision="float" if why else "int8", reason=why or "8 bits", sqnr=none)
        for i, why in enumerate(reasons)
    ]
    if reasons:
        fx = dict(zip((row.name for row in rows), ("linear", "linear_1"), strict=False))
        records.write(path.parent / "nodes.json", dict[str, str | None], fx)
    return Graph(path=path, reference=(), parity=[], events=[], layers=rows, training=[], trials=[])


def test_multiplications_are_counted_for_one_sample(tmp_path):
    path = two_products(tmp_path / "model.onnx")
    assert [op.macs for op in with_macs(coverage(), path, path).ops] == [128, 64]
    assert with_macs(None, path, path) is None


def test_what_a_dialect_writes_in_float_is_said_to_be_so_on_purpose(tmp_path):
    compiled = two_products(tmp_path / "compiled.onnx")
    planned = onnx.load(compiled)
    grid = {"s": np.float32(0.1), "z": np.int8(0)}
    planned.graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in grid.items())
    for node in planned.graph.node:
        node.input[:] = [f"{name}.dq" for name in node.input]
    pairs = [
        helper.make_node(op, [given, "s", "z"], [made], made)
        for name in ("x", "a", "h", "b")
        for op, given, made in (("QuantizeLinear", name, f"{name}.q"), ("DequantizeLinear", f"{name}.q", f"{name}.dq"))
    ]
    first, second = planned.graph.node
    del planned.graph.node[:]
    planned.graph.node.extend([*pairs[:4], first, *pairs[4:], second])
    onnx.save(planned, tmp_path / "model.onnx")
    inside, outside = with_macs(coverage(), compiled, tmp_path / "model.onnx").ops
    assert (inside.runs_in, inside.cause) == ("int8", "")
    assert outside.cause.startswith("Written in float on purpose")
    assert outside.fix == ""
    same = with_macs(coverage(), tmp_path / "model.onnx", tmp_path / "model.onnx")
    assert same.ops[1].cause == "Its input is float."


def test_what_the_compiled_graph_cannot_count_the_portable_one_does(tmp_path):
    portable = two_products(tmp_path / "model.onnx")
    compiled = onnx.load(portable)
    compiled.graph.node[0].op_type, compiled.graph.node[0].domain = "MatMulNBits", "com.microsoft"
    onnx.save(compiled, tmp_path / "compiled.onnx")
    assert [op.macs for op in with_macs(coverage(), tmp_path / "compiled.onnx", portable).ops] == [128, 64]


def test_the_figures_are_the_runtimes_and_keep_the_plan_beside_them(tmp_path):
    path = two_products(tmp_path / "model.onnx")
    section = coverage_section(with_macs(coverage(), path, path), graph_of(path), elsewhere=False)
    macs, ops = coverage_figures(section, PLANNED)
    assert macs.value == pytest.approx(100 * 128 / 192)
    assert dict(macs.conditions) == {"how": "the profile", "source": "runtime", "macs": 192, "planned_pct": 100.0}
    assert (ops.name, ops.value, ops.conditions["ops"]) == ("int8_ops_pct", 50.0, 2)


@pytest.mark.parametrize(("proxy", "elsewhere"), [(True, False), (False, True)])
def test_another_runtime_or_machine_is_a_stand_in(tmp_path, proxy, elsewhere):
    path = two_products(tmp_path / "model.onnx")
    section = coverage_section(with_macs(coverage(proxy=proxy), path, path), graph_of(path), elsewhere=elsewhere)
    assert section.proxy
    assert [figure.conditions["source"] for figure in coverage_figures(section, PLANNED)] == ["stand-in"] * 2


def test_an_operation_of_which_nothing_is_told_leaves_no_figure(tmp_path):
    path = two_products(tmp_path / "model.onnx")
    section = coverage_section(with_macs(coverage(second=""), path, path), graph_of(path), elsewhere=False)
    for figure in coverage_figures(section, PLANNED):
        assert figure.value is None
        assert "does not tell of 1 of 2 operations: MatMul second" in figure.reason


def test_sizes_that_are_not_known_leave_only_the_count_of_operations(tmp_path):
    path = two_products(tmp_path / "model.onnx", open_middle=True)
    section = coverage_section(with_macs(coverage(), path, path), graph_of(path), elsewhere=False)
    macs, ops = coverage_figures(section, PLANNED)
    assert (macs.value, ops.value) == (None, 50.0)
    assert macs.reason == "the multiplications of MatMul first and 1 more cannot be counted"


def test_without_a_runtimes_word_the_plan_stands(tmp_path):
    path = two_products(tmp_path / "model.onnx")
    section, figures = told_coverage(None, graph_of(path), elsewhere=False)
    assert section is None
    assert [(f.name, f.value, f.conditions["source"]) for f in figures] == [("int8_macs_pct", 0.0, "plan")]


def test_a_layer_that_was_left_in_float_on_purpose_says_why_under_its_own_name(tmp_path):
    path = two_products(tmp_path / "model.onnx")
    skipped = "skipped by the recipe ('net.1')"
    first, second = coverage_section(coverage(), graph_of(path, "", skipped), elsewhere=False).ops
    assert (first.layer, first.name, first.cause) == ("net.0", "net.0", "")
    assert second.cause == f"Left in float: {skipped}."
    assert second.fix == "Take it out of steps.quantize.skip."
    _, other = coverage_section(coverage(), graph_of(path, "", "the target's rules"), elsewhere=False).ops
    assert (other.cause, other.fix) == ("Left in float: the target's rules.", "")


def test_the_engines_record_keeps_its_coverage(tmp_path):
    spec = TensorSpec(name="x", dtype="float32", shape=(1, 8))
    (tmp_path / "engine").mkdir()
    engine = Engine(
        runtime="onnxruntime",
        runtime_version="1",
        directory=tmp_path / "engine",
        entry="model.onnx",
        status="built",
        inputs=(spec,),
        outputs=(spec,),
        coverage=coverage(macs=(128, 64)),
    )
    records.write_engine(tmp_path, engine)
    assert records.read_engine(tmp_path) == engine
    assert engine.coverage.int8_macs_pct == pytest.approx(100 * 128 / 192)
    assert engine.coverage.int8_ops_pct == 50.0
    assert [op.node for op in engine.coverage.outside] == ["second"]
    assert dataclasses.replace(engine.coverage, ops=()).int8_macs_pct is None
