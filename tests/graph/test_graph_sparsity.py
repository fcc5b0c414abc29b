"""Whether weights hold an N:M pattern, read off the graph itself, float or integers."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeopt.core.errors import GraphError
from edgeopt.core.sparsity import Pattern
from edgeopt.graph.io import load_onnx, save_onnx
from edgeopt.graph.qdq import NODE_KEY, SPARSITY_KEY
from edgeopt.graph.sparsity import layer_sparsity, mark_sparsity

RNG = np.random.default_rng(0)


def weight(shape, axis, dtype=np.float32, *, sparse=True):
    """No zeros but, where sparse, two at random places of every four along the axis."""
    made = RNG.integers(1, 90, shape) * RNG.choice([-1, 1], shape)
    if sparse:
        groups = np.moveaxis(made, axis, -1)
        keep = np.tile([True, True, False, False], groups.size // 4).reshape(*groups.shape[:-1], -1, 4)
        keep = RNG.permuted(keep, axis=-1).reshape(groups.shape)
        made = np.moveaxis(np.where(keep, groups, 0), -1, axis)
    return np.ascontiguousarray(made).astype(dtype)


def saved(path, nodes, weights):
    """A graph of [N, 8, 4, 4] images and [N, 8] rows."""
    inputs = [("image", [2, 8, 4, 4]), ("rows", [2, 8])]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * (4 if nodes[-1].op_type == "Conv" else 2))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def shares(path, pattern="2:4"):
    return [layer.share for layer in layer_sparsity(path, pattern)]


@pytest.mark.parametrize("sparse", [True, False])
class TestFloat:
    def test_a_convolution_along_its_input_channels(self, sparse, tmp_path):
        nodes = [helper.make_node("Conv", ["image", "w"], ["y"])]
        path = saved(tmp_path / "net.onnx", nodes, {"w": weight((6, 8, 3, 3), 1, sparse=sparse)})
        assert shares(path) == [float(sparse)]

    def test_a_product_along_what_is_summed(self, sparse, tmp_path):
        nodes = [
            helper.make_node("MatMul", ["rows", "a"], ["m"]),
            helper.make_node("Gemm", ["m", "b"], ["n"]),
            helper.make_node("Gemm", ["n", "c"], ["o"], transB=1),
            helper.make_node("Transpose", ["d"], ["t"], perm=[1, 0]),
            helper.make_node("MatMul", ["o", "t"], ["y"]),
        ]
        axes = {"a": 0, "b": 0, "c": 1, "d": 1}
        weights = {name: weight((8, 8), axis, sparse=sparse) for name, axis in axes.items()}
        assert shares(saved(tmp_path / "net.onnx", nodes, weights)) == [float(sparse)] * 4

    def test_along_another_axis_it_is_chance(self, sparse, tmp_path):
        nodes = [helper.make_node("Gemm", ["rows", "w"], ["y"], transB=1)]
        (share,) = shares(saved(tmp_path / "net.onnx", nodes, {"w": weight((64, 8), 0, sparse=sparse)}))
        assert share < 1.0


class TestIntegers:
    def quantized(self, path, w, *, zero=0, axis=0, dtype=np.int8):
        channels = w.shape[axis]
        weights = {
            "w": (w.astype(np.int32) + zero).astype(dtype),
            "s": RNG.uniform(0.01, 0.02, channels).astype(np.float32),
            "z": np.full(channels, zero, dtype),
            "xs": np.float32(0.1),
            "xz": np.int8(0),
        }
        name = "image" if w.ndim == 4 else "rows"
        nodes = [
            helper.make_node("QuantizeLinear", [name, "xs", "xz"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "xs", "xz"], ["x"]),
            helper.make_node("DequantizeLinear", ["w", "s", "z"], ["d"], axis=axis),
            helper.make_node("Conv" if w.ndim == 4 else "MatMul", ["x", "d"], ["y"]),
        ]
        return saved(path, nodes, weights)

    def test_behind_a_dequantize(self, tmp_path):
        assert shares(self.quantized(tmp_path / "a.onnx", weight((4, 8, 1, 1), 1))) == [1.0]
        assert shares(self.quantized(tmp_path / "b.onnx", weight((4, 8, 1, 1), 1, sparse=False))) == [0.0]
        assert shares(self.quantized(tmp_path / "c.onnx", weight((8, 4), 0), axis=1)) == [1.0]

    def test_zero_is_what_the_zero_point_stands_for(self, tmp_path):
        w = weight((4, 8, 1, 1), 1)
        assert shares(self.quantized(tmp_path / "a.onnx", w, zero=128, dtype=np.uint8)) == [1.0]
        one_off = np.where(w == 0, 1, w)
        assert shares(self.quantized(tmp_path / "b.onnx", one_off, zero=-1)) == [0.0]


def test_the_share_counts_groups(tmp_path):
    w = weight((1, 16, 1, 1), 1)
    w[0, :4] = 1
    graph = saved(
        tmp_path / "net.onnx", [helper.make_node("Gemm", ["rows", "w"], ["y"], transB=1)], {"w": w.reshape(2, 8)}
    )
    assert shares(graph) == [0.75]
    assert shares(graph, "3:4") == [0.75]
    assert shares(graph, "1:4") == [0.0]


@pytest.mark.parametrize(("shape", "group"), [((8, 2, 3, 3), 4), ((8, 8, 3, 3), 1)], ids=["grouped", "whole"])
def test_a_grouped_convolution_has_no_sparse_kernel(shape, group, tmp_path):
    node = helper.make_node("Conv", ["image", "w"], ["y"], group=group)
    path = saved(tmp_path / "net.onnx", [node], {"w": np.zeros(shape, np.float32)})
    assert shares(path) == [float(group == 1)]


def test_channels_that_fill_no_group_hold_nothing(tmp_path):
    path = saved(tmp_path / "net.onnx", [helper.make_node("Gemm", ["rows", "w"], ["y"])], {"w": np.zeros((8, 3), "f")})
    assert shares(path, "2:5") == [0.0]


class TestMark:
    def model(self, tmp_path, *, sparse=True):
        nodes = [
            helper.make_node("MatMul", ["rows", "a"], ["m"]),
            helper.make_node("MatMul", ["m", "b"], ["y"]),
        ]
        weights = {"a": weight((8, 8), 0, sparse=sparse), "b": weight((8, 8), 0, sparse=False)}
        model = load_onnx(saved(tmp_path / "net.onnx", nodes, weights))
        for node, name in zip(model.graph, ("first", "second"), strict=True):
            node.metadata_props[NODE_KEY] = name
        return model

    def test_is_written_where_the_weight_holds_it_and_read_back(self, tmp_path):
        model = self.model(tmp_path)
        mark_sparsity(model, {"first": "2:4"})
        save_onnx(model, tmp_path / "marked.onnx")
        first, second = layer_sparsity(tmp_path / "marked.onnx")
        assert (first.name, first.share, first.marked) == ("first", 1.0, "2:4")
        assert (second.name, second.marked) == ("second", "")
        assert [SPARSITY_KEY in node.metadata_props for node in model.graph] == [True, False]

    def test_is_refused_where_it_does_not(self, tmp_path):
        with pytest.raises(GraphError, match=r"\(1 of 2\)\. Received: groups that hold it: second 0\.00 %"):
            mark_sparsity(self.model(tmp_path), {"first": "2:4", "second": "2:4"})
        with pytest.raises(GraphError, match=r"first 0\.00 %"):
            mark_sparsity(self.model(tmp_path, sparse=False), {"first": "2:4"})

    def test_of_a_layer_that_is_not_there_is_refused(self, tmp_path):
        with pytest.raises(GraphError, match=r"not in the exported graph\. Received: third\. It has first, second"):
            mark_sparsity(self.model(tmp_path), {"third": "2:4"})

    def test_of_a_layer_whose_weight_is_no_constant_is_refused(self, tmp_path):
        model = self.model(tmp_path)
        first = next(iter(model.graph))
        first.replace_input_with(1, ir.Value(name="computed"))
        with pytest.raises(GraphError, match=r"\(1 of 1\)\. Received: groups that hold it: first\."):
            mark_sparsity(model, {"first": "2:4"})


def test_a_weight_that_a_runtimes_own_op_packed_is_counted_and_not_judged(tmp_path):
    nodes = [helper.make_node("MatMul", ["rows", "a"], ["m"]), helper.make_node("MatMul", ["m", "b"], ["y"])]
    path = saved(tmp_path / "net.onnx", nodes, {"a": weight((8, 8), 0), "b": weight((8, 8), 0)})
    model = load_onnx(path)
    for node in model.graph:
        node.metadata_props[SPARSITY_KEY] = "2:4"
    first = next(iter(model.graph))
    first.op_type, first.domain = "MatMulNBits", "com.microsoft"
    save_onnx(model, path)
    assert shares(path) == [None, 1.0]


def test_what_sparse_tensor_cores_take():
    assert [text for text in ("2:4", "1:4", "3:4", "1:2", "4:8") if Pattern.read(text).is_two_of_four] == ["2:4", "1:4"]
