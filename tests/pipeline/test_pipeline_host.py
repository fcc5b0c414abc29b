"""A graph runs on samples in its own batch, and inner values come back as they are."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeopt.pipeline.host import run_onnx


@pytest.fixture(params=["batch", 4])
def graph(request, tmp_path):
    weight = numpy_helper.from_array(np.arange(24, dtype=np.float32).reshape(8, 3), "w")
    nodes = [
        helper.make_node("Neg", ["w"], ["inner"]),
        helper.make_node("Gemm", ["x", "inner"], ["y"], transB=1),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [request.param, 3])
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [request.param, 8])]
    outputs.append(helper.make_tensor_value_info("inner", TensorProto.FLOAT, [8, 3]))
    model = helper.make_model(
        helper.make_graph(nodes, "net", [x], outputs, [weight]), opset_imports=[helper.make_opsetid("", 20)]
    )
    onnx.save(model, tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


def test_an_inner_value_without_samples_comes_back_whole(graph):
    x = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    outputs = run_onnx(graph, {"x": x})
    assert outputs["inner"].shape == (8, 3)
    np.testing.assert_allclose(outputs["y"], x @ -np.arange(24).reshape(8, 3).T, rtol=1e-5)


@pytest.mark.parametrize("count", [3, 9])
def test_a_count_that_is_no_multiple_of_a_fixed_batch_is_padded_and_cut(graph, count):
    x = np.random.default_rng(0).standard_normal((count, 3)).astype(np.float32)
    np.testing.assert_allclose(run_onnx(graph, {"x": x})["y"], x @ -np.arange(24).reshape(8, 3).T, rtol=1e-5)
