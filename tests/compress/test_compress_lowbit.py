"""Weights of fewer than 8 bits: which layers get them, and what their grids are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from compress_nets import dataset, make_config, make_context, run, samples, sqnr_db
from training_nets import make_qat, net_of, training_data

from edgeopt.compress.gptq import gptq, output_error
from edgeopt.compress.grouped import quantize_groups
from edgeopt.compress.registry import STEPS

STEP = STEPS["quantize"]


def quantize(model, shape, **config):
    return STEP.run(model, make_config(**config), make_context(dataset(samples(64, shape))))


def weights(result):
    """Every integer weight of the quantized program."""
    constants = {**result.model.program.state_dict, **result.model.program.constants}
    return [t for t in constants.values() if isinstance(t, torch.Tensor) and t.dtype == torch.int8 and t.ndim > 1]


def decided(result):
    return {d.name: d.precision for d in result.decisions}


@pytest.mark.parametrize("net", ["resnet", "mlp", "vit"])
def test_w4a8_weights_have_fifteen_values_and_reach_the_largest(nets, net):
    model, shape = nets[net]
    result = quantize(model, shape, precision="w4a8")
    assert weights(result)
    for weight in weights(result):
        assert weight.flatten(1).abs().amax(1).max() == 7
        assert weight.min() >= -7
    assert {d.precision for d in result.decisions if d.op in ("conv", "linear")} == {"w4a8"}
    assert {d.precision for d in result.decisions if d.op in ("add", "matmul")} <= {"int8", "float"}
    x = samples(32, shape, seed=9)
    assert sqnr_db(run(model.program, x), run(result.model.program, x)) > 8


def test_the_ends_are_what_the_recipe_says_and_only_them(nets):
    model, shape = nets["mlp"]
    assert list(decided(quantize(model, shape, precision="w4a8", ends="int8")).values()) == ["int8", "w4a8", "int8"]
    assert list(decided(quantize(model, shape, precision="int8", ends="float")).values()) == ["float", "int8", "float"]
    named = quantize(model, shape, precision="w4a8", ends="int8", assign={"0": "w4a8"})
    assert list(decided(named).values()) == ["w4a8", "w4a8", "int8"]  # a name goes before a place


def grids(result):
    """Name of each dequantized weight → its integers [N, K] and its scales [N, K / group]."""
    program = result.model.program
    constants = {**program.state_dict, **program.constants}
    names = program.graph_signature
    where = {**names.inputs_to_buffers, **names.inputs_to_parameters, **names.inputs_to_lifted_tensor_constants}
    found = {}
    for node in program.graph.nodes:
        if "dequantize_per_channel" in str(node.target) and "reshape" in str(next(iter(node.users)).target):
            values, scales = (constants[where[node.args[i].name]] for i in (0, 1))
            shape = next(iter(node.users)).args[1]
            found[where[node.args[0].name]] = values.reshape(shape), scales.reshape(shape[0], -1)
    return found


@pytest.mark.parametrize(("precision", "limit"), [("w4", 7), ("w8", 127)])
def test_each_group_of_a_weight_has_a_scale_that_its_largest_weight_ends(nets, precision, limit):
    model, shape = nets["vit"]
    result = quantize(model, shape, precision=precision, group_size=16)
    found = grids(result)
    assert len(found) == 9
    for values, scales in found.values():
        blocks = values.reshape(*scales.shape, 16).abs()
        assert scales.shape[1] == values.shape[1] / 16
        assert torch.equal(blocks.amax(2), torch.full(scales.shape, limit, dtype=torch.int8))
    weights = model.program.state_dict["encoder.0.qkv.weight"].double()
    values, scales = found["encoder_0_qkv_weight_int8"]
    step = scales.double().repeat_interleave(16, 1)
    assert float(((values * step - weights).abs() / step).max()) <= 0.5 + 1e-6


def test_weight_only_leaves_activations_and_every_other_layer_in_float_and_says_so(nets):
    model, shape = nets["resnet"]
    result = quantize(model, shape, precision="w4", group_size=16)
    assert {d.op: d.precision for d in result.decisions} == {"conv": "float", "add": "float", "linear": "w4"}
    assert result.ranges == {}
    assert any("(conv) in float: w4 is for linear layers" in event.message for event in result.events)


def test_a_layer_whose_inputs_are_no_multiple_of_the_group_stays_in_float(nets):
    model, shape = nets["mlp"]
    result = quantize(model, shape, precision="w4", group_size=16)
    assert list(decided(result).values()) == ["float", "w4", "w4"]
    assert result.decisions[0].reason == "its 20 inputs are no multiple of the group size 16"


def test_single_layers_may_be_weight_only_in_an_int8_net(nets):
    model, shape = nets["mlp"]
    result = quantize(model, shape, precision="int8", group_size=32, assign={"2": "w4"})
    assert list(decided(result).values()) == ["int8", "w4", "int8"]
    assert len(result.ranges) == 2
    x = samples(32, shape, seed=9)
    assert sqnr_db(run(model.program, x), run(result.model.program, x)) > 15


def brain_surgeon(weight, hessian, group, limit):
    """The definition that GPTQ is a fast form of: round a column, move the rest to where the error is least.

    For each column the inverse of the remaining Hessian is computed anew, in float64.
    """
    w, damped = weight.astype(np.float64).copy(), hessian + 0.01 * np.mean(np.diag(hessian)) * np.eye(len(hessian))
    integers, scales = np.zeros(w.shape), np.zeros((len(w), w.shape[1] // group))
    for j in range(w.shape[1]):
        if j % group == 0:
            scales[:, j // group] = (np.abs(w[:, j : j + group]).max(1) / limit).astype(np.float32)
        step = scales[:, j // group]
        integers[:, j] = np.clip(np.rint(w[:, j] / step), -limit, limit)
        inverse = np.linalg.inv(damped[j:, j:])
        error = (w[:, j] - integers[:, j] * step) / inverse[0, 0]
        w[:, j:] -= np.outer(error, inverse[0])
    return integers, scales


@pytest.mark.parametrize("limit", [7, 127])
def test_gptq_is_optimal_brain_surgery_in_float64(limit):
    generator = np.random.default_rng(0)
    weight = generator.normal(size=(24, 64)).astype(np.float32)
    inputs = generator.normal(size=(400, 64)) @ generator.normal(size=(64, 64))
    hessian = inputs.T @ inputs
    values, scales = gptq(torch.from_numpy(weight), torch.from_numpy(hessian), 16, limit)
    expected, steps = brain_surgeon(weight, hessian, 16, limit)
    np.testing.assert_allclose(scales.numpy(), steps, rtol=1e-6)
    assert (values.numpy() != expected).mean() < 0.005  # a tie that rounding in the last bit breaks the other way


def test_gptq_lessens_the_error_that_it_says_it_does():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(400, 64, generator=generator).double() @ torch.randn(64, 64, generator=generator).double()
    weight = torch.randn(24, 64, generator=generator)
    hessian = inputs.T @ inputs
    nearest, rounded = quantize_groups(weight, 16, 7), gptq(weight, hessian, 16, 7)
    for values, scales in (nearest, rounded):
        off = weight.double() - values.double() * scales.double().repeat_interleave(16, 1)
        direct = float((off @ inputs.T).square().sum())
        assert output_error(weight, values, scales, hessian) == pytest.approx(direct, rel=1e-9)
    assert output_error(weight, *rounded, hessian) < 0.6 * output_error(weight, *nearest, hessian)


def test_an_input_that_is_always_zero_has_its_weights_rounded_to_the_nearest():
    weight = torch.linspace(-1, 1, 8 * 16).reshape(8, 16)
    values, scales = gptq(weight, torch.zeros(16, 16, dtype=torch.float64), 16, 7)
    nearest = quantize_groups(weight, 16, 7)
    assert torch.equal(values, nearest[0])
    assert torch.equal(scales, nearest[1])


def test_gptq_brings_the_nets_outputs_nearer_and_each_layer_says_by_how_much(nets):
    model, shape = nets["vit"]
    x = samples(64, shape, seed=9)
    reference = run(model.program, x)
    plain, better = (
        quantize(model, shape, precision="w4", group_size=16, gptq=on, calibration_samples=64) for on in (False, True)
    )
    gain = sqnr_db(reference, run(better.model.program, x)) - sqnr_db(reference, run(plain.model.program, x))
    assert gain > 3
    reasons = [d.reason for d in better.decisions if d.precision == "w4"]
    assert len(reasons) == 9
    assert all("dB less output error than the nearest points" in reason for reason in reasons)


def test_four_bit_weights_can_be_trained_on_their_grid():
    model, net, shape = net_of("mlp")
    config = make_qat(precision="w4a8", ends="int8")
    result = STEPS["qat"].run(model, config, make_context(training_data(net, shape)))
    assert list(decided(result).values()) == ["int8", "w4a8", "int8"]
    assert min(int(weight.abs().max()) for weight in weights(result)) <= 7
