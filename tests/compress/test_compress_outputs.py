"""Where a runtime needs it, a convolution's own output is quantized: before a pool, before what no kernel absorbs."""

from __future__ import annotations

import collections

import onnx
import onnxruntime
import pytest
import torch
from compress_nets import dataset, export, make_config, make_context, make_target, run, samples, seeded, sqnr_db
from torch import nn
from torch.nn import functional as f

from edgeopt.compress.registry import STEPS
from edgeopt.graph.dialects import apply_dialect
from edgeopt.graph.export import export_onnx

SHAPE = (3, 16, 16)
POOL = {"quantized_ops": ("conv", "linear", "matmul", "add", "pool"), "residual_add": "both"}
ORT = {**POOL, "quantize_conv_outputs": True}


class Net(nn.Module):
    """A convolution, BatchNorm, something, and a linear layer."""

    def __init__(self, body, features=8):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.next, self.fc, self.body = nn.Conv2d(8, 8, 3, padding=1), nn.Linear(features, 5), body

    def forward(self, x):
        return self.body(self, self.bn(self.conv(x)))


POOLS = {
    "mean": lambda net, x: net.fc(x.relu().mean((2, 3))),
    "mean of negative axes": lambda net, x: net.fc(x.mean((-1, -2))),
    "adaptive_avg_pool2d": lambda net, x: net.fc(f.adaptive_avg_pool2d(f.relu6(x), 1).flatten(1)),
    "avg_pool2d": lambda net, x: net.fc(f.avg_pool2d(f.relu(x), 16).flatten(1)),
    "after a residual addition": lambda net, x: net.fc((net.next(y := x.relu()) + y).relu().mean((2, 3))),
}
ACTIVATIONS = {
    "hardswish": lambda net, x: net.fc(net.next(f.hardswish(x)).relu().mean((2, 3))),
    "silu": lambda net, x: net.fc(net.next(f.silu(x)).relu().mean((2, 3))),
    "gelu": lambda net, x: net.fc(net.next(f.gelu(x)).relu().mean((2, 3))),
    "hardtanh from -1": lambda net, x: net.fc(net.next(f.hardtanh(x)).relu().mean((2, 3))),
    "resize": lambda net, x: net.fc(net.next(f.interpolate(x.relu(), scale_factor=2.0)).relu().mean((2, 3))),
    "a gate": lambda net, x: net.fc((net.next(x.relu()).sigmoid() * x.relu()).mean((2, 3))),
}
QUANTIZED_ALREADY = {
    "relu": lambda net, x: net.fc(net.next(x.relu()).relu().flatten(1)),
    "relu6": lambda net, x: net.fc(net.next(f.relu6(x)).flatten(1)),
    "max-pool": lambda net, x: net.fc(net.next(f.max_pool2d(x.relu(), 1)).flatten(1)),
    "padding": lambda net, x: net.fc(net.next(f.pad(x.relu(), (1, 0, 1, 0)))[:, :, :16, :16].flatten(1)),
    "an output": lambda net, x: net.next(x.relu()),
    "an output, moved": lambda net, x: net.next(x.relu()).flatten(1),
}


def quantize(body, *, features=8, **rules):
    model = export(seeded(lambda: Net(body, features), SHAPE), SHAPE, name="net")
    result = STEPS["quantize"].run(
        model, make_config(), make_context(dataset(samples(64, SHAPE)), make_target(**rules))
    )
    return model, result


def int8_convolutions(result, folder):
    """Of the graph that ONNX Runtime makes: how often QLinearConv, and how often a convolution in float."""
    model = result.model
    path = folder / "net.onnx"
    export_onnx(model.program, model.inputs, model.outputs, path, opset=20, ranges=result.ranges)
    apply_dialect("ort-x86", path, folder / "ort.onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(folder / "ort.onnx", options, providers=["CPUExecutionProvider"])
    counts = collections.Counter(node.op_type for node in onnx.load(folder / "optimized.onnx").graph.node)
    return counts["QLinearConv"], counts["Conv"] + counts["FusedConv"]


@pytest.mark.parametrize("name", POOLS)
def test_the_input_of_a_pool_behind_a_convolution_is_quantized(name, tmp_path):
    model, result = quantize(POOLS[name], **POOL)
    pools = [decision for decision in result.decisions if decision.op == "pool"]
    assert [decision.precision for decision in pools] == ["int8"]
    assert pools[0].node in {node.name for node in result.model.program.graph.nodes}
    x = samples(64, SHAPE, seed=2)
    assert sqnr_db(run(model.program, x), run(result.model.program, x)) > 25
    convolutions = sum(decision.op == "conv" for decision in result.decisions)
    assert int8_convolutions(result, tmp_path) == (convolutions, 0)


@pytest.mark.parametrize("name", POOLS)
def test_a_target_without_pools_leaves_them_alone(name):
    _, result = quantize(POOLS[name], residual_add="both")
    assert not [decision for decision in result.decisions if decision.op == "pool"]


@pytest.mark.parametrize(
    "body",
    [
        lambda net, x: net.fc(f.hardswish(x).mean((2, 3))),
        lambda net, x: net.fc(x.relu().mean((1, 2, 3), keepdim=True).expand(-1, 8, -1, -1).flatten(1)),
        lambda net, x: net.fc(x.relu().mean(1).flatten(1)[:, :8]),
        lambda net, x: net.fc(f.max_pool2d(x, 16).flatten(1)),
    ],
)
def test_a_pool_of_anything_else_stays_in_float(body):
    _, result = quantize(body, **POOL)
    assert [decision.op for decision in result.decisions] == ["conv", "linear"]
    assert len(result.ranges) == 2


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_convolution_in_front_of_what_no_kernel_absorbs_stays_in_int8(name, tmp_path):
    model, result = quantize(ACTIVATIONS[name], **ORT)
    marked = [decision for decision in result.decisions if decision.reason.endswith("and output")]
    assert "conv" in [decision.name for decision in marked]
    x = samples(64, SHAPE, seed=2)
    assert sqnr_db(run(model.program, x), run(result.model.program, x)) > 25
    assert int8_convolutions(result, tmp_path) == (2, 0)
    quantizers = {n.name for n in result.model.program.graph.nodes if "quantize_per_tensor" in n.name}
    assert set(result.ranges) == {name for name in quantizers if not name.startswith("de")}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_without_the_rule_onnx_runtime_leaves_that_convolution_in_float(name, tmp_path):
    _, result = quantize(ACTIVATIONS[name], **POOL)
    assert not [decision for decision in result.decisions if decision.reason.endswith("and output")]
    assert int8_convolutions(result, tmp_path)[1] > 0


@pytest.mark.parametrize("name", QUANTIZED_ALREADY)
def test_no_output_is_quantized_twice_or_without_need(name):
    features = 8 * 256
    with_rule, without = (quantize(QUANTIZED_ALREADY[name], features=features, **rules)[1] for rules in (ORT, POOL))
    assert with_rule.ranges == without.ranges
    assert not [decision for decision in with_rule.decisions if decision.reason.endswith("and output")]


def test_a_convolution_that_stays_in_float_keeps_its_output():
    model = export(seeded(lambda: Net(ACTIVATIONS["hardswish"]), SHAPE), SHAPE, name="net")
    context = make_context(dataset(samples(64, SHAPE)), make_target(**ORT))
    result = STEPS["quantize"].run(model, make_config(skip=["conv"]), context)
    decision = next(decision for decision in result.decisions if decision.name == "conv")
    assert decision.precision == "float"
    consumer = next(n for n in result.model.program.graph.nodes if "hardswish" in str(n.target))
    assert "dequantize" not in str(consumer.args[0].target)


def test_a_dead_channels_live_bias_is_still_int32_on_a_dialects_finer_grid(tmp_path):
    def body(net, x):
        return net.fc(net.next(f.relu6(x)).relu().mean((2, 3)))

    module = seeded(lambda: Net(body), SHAPE)
    with torch.no_grad():
        module.bn.weight.mul_(8.0)  # values reach ReLU6's bound, where the grid becomes finest: 6/255 instead of 6/127
        module.next.weight[3].fill_(1e-12)  # what BatchNorm folding leaves of a dead channel
        module.next.bias[3] = 20.0  # and a bias that needs a coarser weight scale than its floor
    model = export(module, SHAPE, name="net")
    context = make_context(dataset(samples(64, SHAPE)), make_target(**ORT))
    result = STEPS["quantize"].run(model, make_config(), context)
    assert int8_convolutions(result, tmp_path) == (2, 0)
    written = onnx.load(tmp_path / "ort.onnx").graph
    makers = {node.output[0]: node for node in written.node}
    convolutions = [node for node in written.node if node.op_type == "Conv"]
    assert [makers[node.input[2]].op_type for node in convolutions] == ["DequantizeLinear"] * 2


class Branches(nn.Module):
    """Two branches that meet; one of them has a second reader."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Conv2d(i, 8, 3, padding=1) for i in (3, 3, 16, 8))
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        a, b = self.a(x).relu(), 4 * self.b(x).relu()
        both = self.c(f.max_pool2d(torch.cat([a, b], 1), 2))
        return self.fc((both + f.max_pool2d(self.d(a), 2)).relu().mean((2, 3)))


def branches(**rules):
    model = export(seeded(Branches, SHAPE), SHAPE, name="net")
    data = make_context(dataset(samples(64, SHAPE)), make_target(**rules))
    return model, STEPS["quantize"].run(model, make_config(), data)


def test_what_meets_in_a_concatenation_lies_on_one_grid():
    rules = {**ORT, "quantized_ops": (*ORT["quantized_ops"], "concat")}
    model, result = branches(**rules)
    assert [d.precision for d in result.decisions if d.op == "concat"] == ["int8"]
    nodes = list(result.model.program.graph.nodes)
    (cat,) = [node for node in nodes if "cat.default" in str(node.target)]
    (reader,) = [node for node in cat.users if "quantize" in str(node.target)]
    scales = [source.args[1] for source in (*cat.args[0], reader)]
    assert len(set(map(float, scales))) == 1
    x = samples(64, SHAPE, seed=2)
    assert sqnr_db(run(model.program, x), run(result.model.program, x)) > 25


def test_a_target_without_concatenation_leaves_it_in_float():
    _, result = branches(**ORT)
    assert not [decision for decision in result.decisions if decision.op == "concat"]


@pytest.mark.parametrize("asked", [True, False])
def test_a_linear_layers_output_is_quantized_where_the_runtime_writes_int8_only_and_the_models_own_is_not(
    asked, tmp_path
):
    """XNNPACK's int8 products write int8: without a grid behind it, a linear layer would run in float there."""
    shape = (12,)
    net = lambda: nn.Sequential(nn.Linear(12, 16), nn.SiLU(), nn.Linear(16, 5))  # noqa: E731
    model = export(seeded(net, shape), shape, name="net")
    target = make_target(**POOL, quantize_linear_outputs=asked)
    result = STEPS["quantize"].run(model, make_config(), make_context(dataset(samples(64, shape)), target))
    made = result.model
    export_onnx(made.program, made.inputs, made.outputs, tmp_path / "net.onnx", opset=20, ranges=result.ranges)
    graph = onnx.load(tmp_path / "net.onnx").graph
    readers = collections.defaultdict(set)
    for node in graph.node:
        for name in node.input:
            readers[name].add(node.op_type)
    first, last = (node for node in graph.node if node.op_type == "Gemm")
    assert readers[first.output[0]] == ({"QuantizeLinear"} if asked else {"Sigmoid", "Mul"})
    assert last.output[0] in {value.name for value in graph.output}
    assert not readers[last.output[0]]
