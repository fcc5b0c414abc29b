"""The ONNX graph as a torch program computes what ONNX says, operator by operator, and refuses what it cannot."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from backend_nets import conv_net, quantized_net
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from torch_program_cases import CASES, graph_of

from edgeopt.backends.registry import BACKENDS
from edgeopt.backends.torch_program.build import build_module, build_program, node_of
from edgeopt.backends.torch_program.graph import read_plan
from edgeopt.backends.torch_program.placement import without_int8
from edgeopt.backends.torch_program.table import CONSTANT_OPS, OPERATORS
from edgeopt.core.errors import BackendError


def run(module, *arrays):
    with torch.no_grad():
        return [value.numpy() for value in module(*(torch.from_numpy(array.copy()) for array in arrays))]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.op)
def test_an_operator_computes_what_onnx_says(case, save):
    """Against ONNX's own reference evaluator. The last bits of a float32 sum over at most 36 products may differ."""
    model, arrays = graph_of(case)
    expected = ReferenceEvaluator(model).run(None, {f"x{i}": array for i, array in enumerate(arrays)})
    module, _, _ = build_module(save(model), 1, "Torch")
    for got, want in zip(run(module, *arrays), expected, strict=True):
        assert got.dtype == np.asarray(want).dtype
        assert got.shape == np.asarray(want).shape
        if case.op == "QuantizeLinear":  # the reciprocal's last bit: no such value is among these
            np.testing.assert_array_equal(got, want)
        else:
            np.testing.assert_allclose(got, want, atol=1e-5, rtol=1e-5)


def test_every_operator_of_the_table_has_a_case():
    assert sorted(set(OPERATORS) - {case.op for case in CASES}) == []


@pytest.mark.parametrize("net", [conv_net, quantized_net])
def test_the_exported_program_computes_what_the_graph_computes(net, save):
    program = build_program(save(net()), 3, "Torch")
    image = np.random.default_rng(0).normal(size=(3, 3, 6, 6)).astype(np.float32)
    expected = ReferenceEvaluator(net()).run(None, {"image": image})[0]
    for module in (program.module, program.exported.module()):
        np.testing.assert_allclose(run(module, image)[0], expected, atol=1e-5, rtol=0)
    assert [spec.shape for spec in program.outputs] == [(3, 5)]


@pytest.mark.parametrize("form", ["integer", "rounded"])
def test_the_quantization_is_the_graphs_own(form, save):
    """Scales and zero points stand in the program as they stand in the file, whichever way weights are written."""
    net = quantized_net()
    program = build_program(save(net), 1, "Torch", weights=form)
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in net.graph.initializer}
    scales, ops = [], []
    for node in program.exported.graph.nodes:
        name = str(node.target)
        if "quantize_per_tensor" in name:
            scales.append(node.args[1])
        ops.append(name)
    assert set(scales) == {float(tensors["xs"])}
    state = {name.rpartition(".")[2]: value.numpy() for name, value in program.module.named_buffers()}
    np.testing.assert_array_equal(state["c_weight_scale"], tensors["fs"])
    per_channel = [op for op in ops if "quantize_per_channel" in op]
    assert len([op for op in per_channel if "dequantize" in op]) == 2
    assert len([op for op in per_channel if "dequantize" not in op]) == (2 if form == "rounded" else 0)


def test_a_weight_that_stays_float_has_the_same_values(save):
    image = np.random.default_rng(0).normal(size=(1, 3, 6, 6)).astype(np.float32)
    path = save(quantized_net())
    kept, _, _ = build_module(path, 1, "Torch")
    plain, _, _ = build_module(path, 1, "Torch", stays_float=["conv", "gemm"])
    np.testing.assert_array_equal(run(kept, image)[0], run(plain, image)[0])
    assert not any(buffer.dtype == torch.int8 for buffer in plain.buffers())


def test_each_reader_of_a_quantized_tensor_dequantizes_it_for_itself(save):
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "quantize"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], "dequantize"),
        helper.make_node("Relu", ["d"], ["r"], "relu"),
        helper.make_node("Add", ["r", "d"], ["y"], "add"),
    ]
    program = build_program(save(graph(nodes, s=np.float32(0.1), z=np.int8(0))), 1, "Torch")
    assert sum("dequantize" in str(node.target) for node in program.exported.graph.nodes) == 2
    owners = {node_of(program, node.meta) for node in program.exported.graph.nodes if "dequantize" in str(node.target)}
    assert owners == {"relu", "add"}


def test_sizes_that_the_graph_computes_become_numbers(save):
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"], "shape"),
        helper.make_node("Gather", ["shape", "first"], ["rows"], "rows"),
        helper.make_node("Concat", ["rows", "rest"], ["wanted"], "wanted", axis=0),
        helper.make_node("Reshape", ["x", "wanted"], ["y"], "reshape"),
    ]
    model = graph(nodes, first=np.array([0], np.int64), rest=np.array([-1, 2], np.int64))
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    module, _, _ = build_module(save(model), 2, "Torch")
    np.testing.assert_array_equal(run(module, x)[0], x.reshape(2, 2, 2))


def test_an_addition_behind_a_product_with_a_constant_is_its_bias(save):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"], "matmul"), helper.make_node("Add", ["b", "m"], ["y"], "add")]
    weight, bias = np.ones((4, 3), np.float32), np.arange(3, dtype=np.float32)
    path = save(graph(nodes, w=weight, b=bias))
    assert [(node.op, node.outputs) for node in read_plan(path, 1, "Torch").nodes] == [("MatMul", ("y",))]
    x = np.ones((2, 4), np.float32)
    module, _, _ = build_module(path, 2, "Torch")
    np.testing.assert_array_equal(run(module, x)[0], x @ weight + bias)


def test_an_input_that_is_an_output_is_a_value_of_its_own(save):
    model = graph([helper.make_node("Relu", ["x"], ["y"], "relu")])
    model.graph.output.append(helper.make_tensor_value_info("x", 1, ["batch", 4]))
    x = np.array([[-1, 2, -3, 4]], np.float32)
    got = run(build_program(save(model), 1, "Torch").exported.module(), x)
    np.testing.assert_array_equal(got[0], np.maximum(x, 0))
    np.testing.assert_array_equal(got[1], x)


def test_a_product_has_an_int8_kernel_only_between_two_quantized_tensors(save):
    found = without_int8(read_plan(save(quantized_net()), 1, "XNNPACK"), "XNNPACK")
    assert found == {"gemm": "its input is not quantized"}  # a Reshape stands between; conv's Q is behind its ReLU
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], "quantize"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], "dequantize"),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["dw"], "weight"),
        helper.make_node("MatMul", ["d", "dw"], ["y"], "last"),
    ]
    model = graph(nodes, s=np.float32(0.1), z=np.int8(0), w=np.ones((4, 3), np.int8))
    found = without_int8(read_plan(save(model), 1, "XNNPACK"), "XNNPACK")
    assert "XNNPACK has kernels that write int8 only" in found["last"]


@pytest.mark.parametrize(
    ("op", "attributes", "message"),
    [
        ("Slice", {"constants": [[-1], [-100], [1], [-1]]}, "it goes in steps of -1"),
        ("MaxPool", {"kernel_shape": [3, 3], "outputs": 2}, "its indices are read"),
        ("Resize", {"constants": [None, np.float32([1, 1, 1.5, 1.5])], "mode": "cubic"}, "cubic with half_pixel"),
        ("Pad", {"constants": [[0, 0, 1, 1, 0, 0, 1, 1]], "mode": "wrap"}, "it pads with wrap"),
        ("AveragePool", {"kernel_shape": [3, 3], "pads": [0, 0, 1, 1]}, "not the same at both ends"),
        ("ConvTranspose", {"constants": [np.ones((4, 1, 3, 3), np.float32)], "pads": [0, 0, 1, 1]}, "not the same"),
        ("ArgMax", {"select_last_index": 1}, "the last of equal values"),
    ],
)
def test_what_torch_does_not_have_is_refused_with_the_node(op, attributes, message, save):
    constants = attributes.pop("constants", [])
    outputs = ["y", "indices"][: attributes.pop("outputs", 1)]
    names = ["x", *("" if value is None else f"c{index}" for index, value in enumerate(constants))]
    node = helper.make_node(op, names, outputs, "the node", **attributes)
    made = {
        f"c{i}": np.array(v, np.int64 if isinstance(v, list) else None)
        for i, v in enumerate(constants)
        if v is not None
    }
    with pytest.raises(BackendError, match=rf"'the node' cannot be written as a torch program.*{message}"):
        build_module(save(graph([node], shape=(1, 4, 6, 6), **made)), 1, "Torch")


def test_an_operator_that_is_not_in_the_table_is_named_before_and_while_compiling(save):
    from backend_nets import make_rules, make_target

    path = save(graph([helper.make_node("Det", ["x"], ["y"], "the node")]))
    assert "Det" not in OPERATORS
    findings = BACKENDS["executorch"].check(path, make_target(), make_rules("executorch"))
    assert [(f.severity, f.rule, f.node) for f in findings] == [("error", "TPR003", "the node")]
    with pytest.raises(BackendError, match="does not write in torch: Det"):
        build_module(path, 1, "Torch")


def test_an_input_that_varies_beyond_its_batch_is_refused(save):
    from backend_nets import make_rules, make_target

    path = save(graph([helper.make_node("Relu", ["x"], ["y"], "relu")], shape=("batch", "length")))
    assert [f.rule for f in BACKENDS["litert"].check(path, make_target(), make_rules("litert"))] == ["TPR002"]
    with pytest.raises(BackendError, match="varies beyond its batch"):
        build_module(path, 1, "Torch")


def test_a_size_that_depends_on_data_is_refused(save):
    node = helper.make_node("ConstantOfShape", ["x"], ["y"], "fill")
    model = graph([node], shape=(2,))
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    assert "ConstantOfShape" in CONSTANT_OPS
    with pytest.raises(BackendError, match=r"depends on its data.*'fill'"):
        build_module(save(model), 1, "Torch")


def test_a_kernel_that_fails_names_the_node_that_it_stood_at(save):
    nodes = [helper.make_node("Relu", ["x"], ["r"], "relu"), helper.make_node("MatMul", ["r", "w"], ["y"], "product")]
    model = graph(nodes, w=np.ones((7, 2), np.float32))
    with pytest.raises(BackendError, match="at 'product'"):
        build_module(save(model), 1, "Torch")


def graph(nodes, *, shape=("batch", 4), **constants):
    values = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))]
    outputs = [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)]
    made = helper.make_graph(nodes, "graph", inputs, outputs, values)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
