from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeopt.graph.int8_macs import int8_macs_pct


def save(path, *, quantize_second=False, weight_only=False, open_middle=False):
    """x[N, 8] · a[8, 16] · b[16, 4]: 128 and 64 multiplications; the first product in int8."""
    rng = np.random.default_rng(0)
    nodes, constants = [], [numpy_helper.from_array(np.float32(0.1), "s"), numpy_helper.from_array(np.int8(0), "z")]

    def grid(name):
        nodes.append(helper.make_node("QuantizeLinear", [name, "s", "z"], [f"{name}_q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}_q", "s", "z"], [f"{name}_dq"]))
        return f"{name}_dq"

    def weight(name, shape):
        constants.append(numpy_helper.from_array(rng.integers(-9, 9, shape).astype(np.int8), name))
        nodes.append(helper.make_node("DequantizeLinear", [name, "s", "z"], [f"{name}_dq"]))
        return f"{name}_dq"

    nodes.append(helper.make_node("MatMul", ["x" if weight_only else grid("x"), weight("a", (8, 16))], ["h"]))
    hidden = grid("h") if quantize_second else "h"
    nodes.append(helper.make_node("MatMul", [hidden, weight("b", (16, 4))], ["y"]))
    dims = [None, "rows", 8] if open_middle else [None, 8]
    graph = helper.make_graph(
        nodes,
        "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, dims)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        constants,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.mark.parametrize(
    ("options", "percent"),
    [({}, 100 * 128 / 192), ({"quantize_second": True}, 100.0), ({"weight_only": True}, 0.0)],
)
def test_a_product_counts_where_both_operands_are_quantized(tmp_path, options, percent):
    figure = int8_macs_pct(save(tmp_path / "m.onnx", **options))
    assert figure.value == pytest.approx(percent)
    assert figure.conditions["macs"] == 192
    assert "not read from the runtime" in figure.conditions["how"]


def test_sizes_that_are_not_known_leave_a_reason(tmp_path):
    figure = int8_macs_pct(save(tmp_path / "m.onnx", open_middle=True))
    assert figure.value is None
    assert "MatMul" in figure.reason
