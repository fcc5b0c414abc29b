"""The quantized program exports to Q/DQ ONNX, and ONNX Runtime computes what torch computes."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from compress_nets import NETS, dataset, make_config, make_context, make_target, run, samples, sqnr_db

from edgeopt.compress.registry import STEPS


@pytest.mark.parametrize(("name", "per_channel"), [*((name, True) for name in NETS), ("resnet", False)])
def test_onnx_runtime_agrees_with_the_quantized_program(nets, name, per_channel, tmp_path):
    model, shape = nets[name]
    target = make_target(per_channel_weights=per_channel)
    context = make_context(dataset(samples(128, shape)), target)
    result = STEPS["quantize"].run(model, make_config(bias_correction=True), context)
    path = tmp_path / "net.onnx"
    torch.onnx.export(result.model.program, f=path, dynamo=True, opset_version=20, verbose=False)

    graph = onnx.load(path).graph
    weights = {i.name for i in graph.initializer if i.data_type == onnx.TensorProto.INT8 and len(i.dims) > 1}
    quantizes = [n for n in graph.node if n.op_type == "QuantizeLinear"]
    assert len(weights) == sum(d.precision == "int8" and d.op in ("conv", "linear") for d in result.decisions)
    assert len(quantizes) == len(result.ranges)
    assert weights == {n.input[0] for n in graph.node if n.op_type == "DequantizeLinear"} & weights

    options = onnxruntime.SessionOptions()
    # As written, without fusion into int8 kernels, which round once where Q/DQ round twice.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    x = samples(64, shape, seed=4)
    got = session.run(None, {session.get_inputs()[0].name: x})[0]
    expected = run(result.model.program, x)
    # Float sums in another order can move a value over a rounding border: one int8 step somewhere, no more.
    assert sqnr_db(expected, got) > 45
    assert np.abs(expected - got).max() < 0.1 * np.abs(expected).max()
