"""Groups follow the graph, and a trial computes what the converted graph of its assignment computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from compress_nets import MLP, dataset, export, make_config, make_context, make_target, run, samples, seeded, sqnr_db

from edgeopt.compress.ptq import quantize_program
from edgeopt.compress.sensitivity import Trials

TARGET = make_target(
    quantized_ops=("conv", "linear", "matmul", "add", "pool"), residual_add="both", quantize_conv_outputs=True
)


def open_trials(model, data, **options):
    split = data.splits["calibration"]
    context = make_context(data, TARGET)
    return Trials(model, make_config(**options), context, split=split, samples=64, classification=True)


@pytest.fixture(scope="module")
def trials(nets):
    made = {}
    for name in ("resnet", "vit"):
        model, shape = nets[name]
        data = dataset(samples(64, shape))
        made[name] = (model, data, samples(64, shape), open_trials(model, data))
    return made


def members(trials):
    return {group.name: set(group.layers) for group in trials.groups}


def test_a_residual_addition_is_tied_to_the_convolutions_that_make_its_operands(trials):
    groups = members(trials["resnet"][-1])
    assert {"blocks.1.first.0", "blocks.1.second.0", "blocks.1.shortcut.0", "blocks.1.add"} in groups.values()
    assert {"blocks.2.second.0", "blocks.2.add", "mean"} in groups.values()
    assert {"blocks.2.first.0"} in groups.values()


def test_the_products_of_one_attention_are_tied_to_its_q_k_and_v(trials):
    groups = members(trials["vit"][-1])
    assert {"encoder.0.qkv", "encoder.0.matmul", "encoder.0.matmul.2"} in groups.values()
    assert {"encoder.0.mlp.0"} in groups.values()


def test_macs_and_weights_are_those_of_the_layers(trials):
    by_name = {group.name: group for group in trials["resnet"][-1].groups}
    first, head = by_name["blocks.2.first.0"], by_name["head"]
    assert (first.macs, first.weights) == (8 * 8 * 32 * 32 * 9, 32 * 32 * 9)
    assert (head.macs, head.weights) == (320, 320)
    by_name = {group.name: group for group in trials["vit"][-1].groups}
    # 17 tokens, 32 wide: the linear, then q times k and attention times v over 4 heads of 8
    assert by_name["encoder.0.qkv +2"].macs == 17 * 32 * 96 + 2 * 17 * 17 * 32


@pytest.mark.parametrize(("net", "left"), [("resnet", ()), ("resnet", ("blocks.1.second.0 +3",)), ("vit", ("patch",))])
def test_a_trial_computes_what_the_converted_graph_of_its_assignment_computes(trials, net, left):
    model, data, x, made = trials[net]
    chosen = {group.name: "float" if group.name in left else "int8" for group in made.groups}
    config = make_config(assign={k: v for k, v in made.assignment(chosen).items() if v == "float"})
    converted = quantize_program(model, config, make_context(data, TARGET)).model.program
    expected = sqnr_db(run(model.program, x), run(converted, x))
    assert made.score(chosen).sqnr_db == pytest.approx(expected, abs=0.05)


def test_nothing_quantized_is_the_float_model(trials):
    score = trials["resnet"][-1].score({})
    assert (score.divergence, score.agreement) == (0.0, 1.0)


def test_seven_bits_of_weight_lose_more_than_eight(trials):
    made = trials["resnet"][-1]
    group = made.groups[1].name
    assert made.score({group: "w7a8"}).sqnr_db < made.score({group: "int8"}).sqnr_db


def test_the_layer_whose_input_has_an_outlier_is_the_most_sensitive_one():
    net = seeded(MLP, (20,))
    with torch.no_grad():  # a hidden unit of huge values that no later layer reads takes the grid from the others
        net[0].bias[0] = 3000.0
        net[2].weight[:, 0] = 0.0
    model = export(net, (20,))
    made = open_trials(model, dataset(samples(64, (20,))))
    found = {one.group: one for one in made.measure(["int8"], complement=True)}
    assert max(found, key=lambda name: found[name].alone.divergence) == "2"
    assert min(found, key=lambda name: found[name].without.divergence) == "2"
    assert np.isfinite([one.alone.divergence for one in found.values()]).all()
