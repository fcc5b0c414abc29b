"""Bias correction: the mean output error goes, float layers and variances stay."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from compress_nets import dataset, make_config, make_context, make_target, run, samples
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

from edgeopt.compress.bias import correct_biases, mean_errors
from edgeopt.compress.calibrate import Feed, calibrate
from edgeopt.compress.layers import find_layers
from edgeopt.compress.normalize import normalize
from edgeopt.compress.quantizer import EdgeQuantizer
from edgeopt.compress.registry import STEPS
from edgeopt.core.events import ignore_progress

STEP = STEPS["quantize"]


def graphs(model, shape, batch_size=32):
    """The float graph, the quantized one before correction, the layers' channel axes, the feed."""
    rules, config = make_target(weight_bits=7).quantization, make_config()
    feed = Feed.of(model, model.program, dataset(samples(256, shape)).splits["calibration"], 256, batch_size)
    graph = normalize(model.program, split_attention=True)
    layers = find_layers(graph, rules, config)
    prepared = prepare_pt2e(graph, EdgeQuantizer(layers, rules, config))
    with torch.no_grad():
        calibrate(prepared, feed, ignore_progress)
    for module in prepared.modules():
        if hasattr(module, "fix"):
            module.fix()
    reference = copy.deepcopy(prepared)
    axes = {x.node: -3 if x.op == "conv" else -1 for x in layers if x.quantized and x.weighted}
    return reference, convert_pt2e(prepared, fold_quantize=False), axes, feed


@pytest.mark.parametrize("batch_size", [pytest.param(1, marks=pytest.mark.long), 32, 256])
@pytest.mark.parametrize("name", ["resnet", "mobilenet", "vit"])
def test_the_mean_error_of_the_layers_outputs_shrinks(nets, name, batch_size):
    model, shape = nets[name]
    reference, quantized, axes, feed = graphs(model, shape, batch_size)
    with torch.no_grad():
        before = mean_errors(reference, quantized, axes, feed)
        correct_biases(reference, quantized, axes, feed, ignore_progress)
        after = mean_errors(reference, quantized, axes, feed)
    total = [sum(float(e.abs().sum()) for e in errors.values()) for errors in (before, after)]
    assert total[1] < total[0] / 4


def test_on_one_batch_the_first_layers_mean_error_is_gone_exactly(nets):
    model, shape = nets["resnet"]
    reference, quantized, axes, feed = graphs(model, shape, 256)
    first = next(iter(axes))
    with torch.no_grad():
        shifts = correct_biases(reference, quantized, axes, feed, ignore_progress)
        after = mean_errors(reference, quantized, axes, feed)
    assert float(shifts[first].abs().max()) > 1e-5
    assert float(after[first].abs().max()) < 1e-7


def test_the_outputs_mean_error_shrinks_on_samples_that_calibration_did_not_see(nets):
    model, shape = nets["resnet"]
    x = samples(512, shape, seed=5)
    reference = run(model.program, x).mean(0)
    errors = []
    for correction in (False, True):
        context = make_context(dataset(samples(128, shape)))
        result = STEP.run(model, make_config(bias_correction=correction), context)
        errors.append(np.abs(run(result.model.program, x).mean(0) - reference).max())
    assert errors[1] < errors[0] / 2


def test_a_layer_without_a_bias_gets_one_and_a_float_layer_keeps_its_own(nets):
    model, shape = nets["mlp"]
    result = STEP.run(model, make_config(bias_correction=True, skip=("2",)), make_context(dataset(samples(128, shape))))
    program = result.model.program
    node = {d.name: d.node for d in result.decisions}["2"]
    (call,) = [n for n in program.graph.nodes if n.name == node]
    lifted = program.graph_signature.inputs_to_parameters
    kept = [program.state_dict[lifted[a.name]] for a in call.args[1:3]]
    assert torch.equal(kept[0], model.program.state_dict["2.weight"])
    assert torch.equal(kept[1], model.program.state_dict["2.bias"])


def test_a_layer_without_a_bias_gets_one():
    from compress_nets import export, seeded
    from torch import nn

    model = export(seeded(lambda: nn.Sequential(nn.Linear(6, 4, bias=False)), (6,)), (6,))
    result = STEP.run(model, make_config(bias_correction=True), make_context(dataset(samples(64, (6,)))))
    (call,) = [n for n in result.model.program.graph.nodes if n.target == torch.ops.aten.linear.default]
    assert call.args[2].name in result.model.program.graph_signature.inputs_to_parameters
