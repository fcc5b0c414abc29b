"""What the report says of sparse weights, runtime by runtime."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeopt.pipeline.sparsity import sparsity_events
from edgeopt.targets.load import find_target

USED = (
    "TensorRT may run them on sparse tensor cores (compute capability 8.7, builder flag SPARSE_WEIGHTS set), "
    "where it finds them faster"
)


def graph(path, pattern="2:4", *, spoilt=False):
    """Two matrix products, the first sparse and marked."""
    sparse = np.tile(np.array([1, 0, 0, 2], np.float32), 2).reshape(8, 1).repeat(4, 1)
    weights = {"a": np.ones((8, 4), "f") if spoilt else sparse, "b": np.ones((4, 2), "f")}
    nodes = [helper.make_node("MatMul", ["x", "a"], ["m"]), helper.make_node("MatMul", ["m", "b"], ["y"])]
    made = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    if pattern:
        for key, value in (("edgeopt.sparsity", pattern), ("edgeopt.node", "linear")):
            made.node[0].metadata_props.add(key=key, value=value)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def told(path, target, **changes):
    target = find_target(target).model_copy(update=changes)
    return [e.message for e in sparsity_events(path, target, target.runtimes[0], stage="compile it")]


@pytest.mark.parametrize(
    ("target", "changes", "pattern", "expected"),
    [
        (
            "jetson",
            {},
            "2:4",
            USED,
        ),
        (
            "jetson",
            {"compute_capability": 75},
            "2:4",
            "not used: sparse tensor cores need compute capability 8.0, and jetson-orin-nano has less",
        ),
        ("jetson", {}, "4:8", "not used: sparse tensor cores take 2:4 only"),
        ("x86-vnni", {}, "2:4", "not used: no faster on onnxruntime"),
        ("openvino-cpu", {}, "2:4", "not used: no faster on openvino"),
    ],
)
def test_a_runtime_without_kernels_for_it_is_named(target, changes, pattern, expected, tmp_path):
    assert told(graph(tmp_path / "a.onnx", pattern), target, **changes) == [
        f"1 of 2 layers are {pattern} sparse; {expected}."
    ]


def test_a_graph_that_was_not_made_sparse_is_no_event(tmp_path):
    assert told(graph(tmp_path / "a.onnx", ""), "jetson") == []


def test_a_pattern_that_a_dialect_lost_is_a_warning(tmp_path):
    note, warning = told(graph(tmp_path / "a.onnx", spoilt=True), "jetson")
    assert note.startswith("0 of 2 layers are 2:4 sparse")
    assert warning == "In tensorrt's form these are not: linear."
