"""The quantize step on whole nets: how near it stays, what it says it did, what it leaves alone."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from compress_nets import NETS, dataset, make_config, make_context, make_target, run, samples, sqnr_db

import edgeopt.compress.prepare  # noqa: F401 - registers the operations below
from edgeopt.compress.registry import STEPS
from edgeopt.core.errors import RecipeError

STEP = STEPS["quantize"]
Q = torch.ops.quantized_decomposed
QUANTIZE, DEQUANTIZE = Q.quantize_per_tensor.default, Q.dequantize_per_tensor.default
PER_CHANNEL = Q.dequantize_per_channel.default
LAYERS = {"resnet": 9, "mobilenet": 12, "mlp": 3, "vit": 14, "conv1d": 3, "gru": 2}


PLAIN = {}


def quantize(nets, name, *, target=None, seed=0, **config):
    model, shape = nets[name]
    if target is None and not config and not seed:  # looked at from many sides: made once
        if name not in PLAIN:
            PLAIN[name] = STEP.run(model, make_config(), make_context(dataset(samples(128, shape))))
        return PLAIN[name]
    context = make_context(dataset(samples(128, shape)), target, seed=seed)
    return STEP.run(model, make_config(**config), context)


def calls(program, target):
    return [n for n in program.graph.nodes if n.target == target]


def constants(program, target, position=0):
    """The constants that the nodes of one op read, by placeholder."""
    signature = program.graph_signature
    lifted = {**signature.inputs_to_buffers, **signature.inputs_to_parameters}
    named = {**dict(program.named_buffers()), **dict(program.named_parameters())}
    return [named[lifted[n.args[position].name]] for n in calls(program, target)]


@pytest.mark.parametrize("observer", ["minmax", "percentile", "histogram"])
@pytest.mark.parametrize("name", NETS)
def test_every_net_stays_within_25_db_of_its_float_outputs(nets, name, observer):
    model, shape = nets[name]
    result = quantize(nets, name, observer=observer, bias_correction=True)
    x = samples(256, shape, seed=2)
    assert sqnr_db(run(model.program, x), run(result.model.program, x)) > 25
    assert result.stats["layers_int8"] == LAYERS[name]


@pytest.mark.parametrize("name", NETS)
def test_ranges_are_keyed_by_the_quantize_nodes_of_the_returned_program(nets, name):
    result = quantize(nets, name)
    nodes = {n.name: n for n in calls(result.model.program, QUANTIZE)}
    assert set(result.ranges) == set(nodes)
    for key, (low, high) in result.ranges.items():
        scale, zero_point, smallest, largest, dtype = nodes[key].args[1:]
        assert (zero_point, smallest, largest, dtype) == (0, -128, 127, torch.int8)
        assert scale == pytest.approx(max(abs(low), abs(high)) / 127, rel=1e-6)


def test_ranges_are_those_of_the_values_that_flow_there(nets):
    model, shape = nets["mlp"]
    result = quantize(nets, "mlp")
    x = samples(128, shape).astype(np.float64)
    weights = {k: v.detach().double().numpy() for k, v in model.program.state_dict.items()}
    expected = []
    for layer in "024":
        expected.append((x.min(), x.max()))
        x = np.maximum(x @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"], 0)
    np.testing.assert_allclose(list(result.ranges.values()), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NETS)
def test_weights_are_stored_as_int8_with_one_scale_per_output_channel(nets, name):
    program = quantize(nets, name).model.program
    stored = constants(program, PER_CHANNEL)
    scales = constants(program, PER_CHANNEL, 1)
    assert len(stored) == sum(n.args[3] == 0 for n in calls(program, PER_CHANNEL)) > 0
    for weight, scale in zip(stored, scales, strict=True):
        assert weight.dtype == torch.int8
        assert int(weight.min()) >= -127
        assert scale.shape == weight.shape[:1]
        assert bool((scale > 0).all())
    floats = [n for n, b in [*program.named_parameters(), *program.named_buffers()] if n.endswith("weight")]
    assert not [n for n in floats if "norm" not in n and not n.endswith(("before.weight", "after.weight"))]


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "conv1d"])
def test_no_batch_norm_is_left(nets, name):
    program = quantize(nets, name).model.program
    assert not [n for n in program.graph.nodes if "batch_norm" in str(n.target)]


def test_seven_bit_weights_stay_within_63(nets):
    program = quantize(nets, "resnet", target=make_target(weight_bits=7)).model.program
    assert max(int(w.abs().max()) for w in constants(program, PER_CHANNEL)) == 63


def test_per_tensor_weights_have_one_scale(nets):
    result = quantize(nets, "resnet", target=make_target(per_channel_weights=False))
    assert not calls(result.model.program, PER_CHANNEL)
    lifted = result.model.program.graph_signature.inputs_to_buffers
    weights = [n for n in calls(result.model.program, DEQUANTIZE) if n.args[0].name in lifted]
    assert len(weights) == LAYERS["resnet"]
    assert "per tensor" in result.decisions[0].reason


@pytest.mark.parametrize("name", NETS)
def test_any_batch_runs_and_the_inputs_keep_their_names_and_shapes(nets, name):
    model, shape = nets[name]
    result = quantize(nets, name)
    assert (result.model.inputs, result.model.outputs) == (model.inputs, model.outputs)
    assert result.model.program.graph_signature.user_inputs == model.program.graph_signature.user_inputs
    x = samples(7, shape, seed=3)
    whole = run(result.model.program, x)
    np.testing.assert_allclose(whole[:1], run(result.model.program, x[:1]), atol=0.05 * np.abs(whole).max())
    (bounds,) = set(map(str, result.model.program.range_constraints.values()))
    assert bounds == str(*set(model.program.range_constraints.values()))


@pytest.mark.parametrize("name", NETS)
def test_every_layer_is_accounted_for(nets, name):
    result = quantize(nets, name)
    nodes = {n.name: n for n in result.model.program.graph.nodes}
    assert len({d.name for d in result.decisions}) == len(result.decisions)
    for decision in result.decisions:
        node = nodes[decision.node]
        fed_by_int8 = any(s.target in (DEQUANTIZE, PER_CHANNEL) for s in node.all_input_nodes)
        assert fed_by_int8 == (decision.precision == "int8"), decision
        assert decision.reason


def test_layers_have_the_names_of_their_modules(nets):
    names = [d.name for d in quantize(nets, "mobilenet").decisions]
    assert names[:4] == ["features.0.0", "features.1.expand.0", "features.1.depthwise.0", "features.1.project.0"]
    assert "features.1.add" in names
    assert "classifier" in names


def test_a_recurrent_cell_stays_in_float_and_is_reported(nets):
    result = quantize(nets, "gru")
    (gru,) = [d for d in result.decisions if d.op == "recurrent"]
    assert (gru.name, gru.precision, gru.reason) == (
        "gru",
        "float",
        "no runtime's int8 recurrent cells keep the accuracy",
    )
    assert [e.kind for e in result.events if "gru" in e.message] == ["fallback"]


def test_attention_is_split_into_quantized_matmuls_only_where_the_target_has_them(nets):
    split = quantize(nets, "vit")
    assert sum(d.op == "matmul" and d.precision == "int8" for d in split.decisions) == 4
    whole = quantize(nets, "vit", target=make_target(quantized_ops=("conv", "linear")))
    assert [d.reason for d in whole.decisions if d.op == "attention"] == ["the target does not quantize matmul"] * 2


def test_a_tensor_read_by_several_layers_is_quantized_once(nets):
    program = quantize(nets, "resnet").model.program
    quantized = [n.args[0] for n in calls(program, QUANTIZE)]
    assert len(quantized) == len(set(quantized))
    assert max(len(n.users) for n in calls(program, QUANTIZE)) == 2  # the block's conv and its addition


@pytest.mark.parametrize(("rule", "inputs"), [("none", 0), ("skip", 1), ("both", 2)])
def test_a_residual_addition_is_quantized_as_the_target_says(nets, rule, inputs):
    result = quantize(nets, "resnet", target=make_target(residual_add=rule))
    adds = calls(result.model.program, torch.ops.aten.add.Tensor)
    assert [sum(s.target == DEQUANTIZE for s in n.all_input_nodes) for n in adds] == [inputs] * 3


def test_the_skip_input_is_the_one_that_no_convolution_makes(nets):
    program = quantize(nets, "mobilenet").model.program
    for add in calls(program, torch.ops.aten.add.Tensor):
        (skip,) = [n for n in add.all_input_nodes if n.target == DEQUANTIZE]
        (conv,) = [n for n in add.all_input_nodes if n.target != DEQUANTIZE]
        assert conv.target == torch.ops.aten.conv2d.default
        assert len(skip.args[0].args[0].users) == 1  # everything that reads it reads its Q


def test_skipped_layers_stay_in_float(nets):
    result = quantize(nets, "mobilenet", skip=("features.1.*", "classifier"))
    floats = {d.name: d.reason for d in result.decisions if d.precision == "float"}
    assert set(floats) == {f"features.1.{n}" for n in ("expand.0", "depthwise.0", "project.0", "add")} | {"classifier"}
    assert floats["classifier"] == "skipped by the recipe ('classifier')"


def test_a_pattern_that_matches_nothing_is_an_error_with_the_nearest_names(nets):
    with pytest.raises(RecipeError, match=r"matches no layer\. Received: 'clasifier'.*nearest names: classifier,"):
        quantize(nets, "mobilenet", skip=("clasifier",))


def test_a_model_with_nothing_to_quantize_is_refused(nets):
    with pytest.raises(RecipeError, match=r"no layer that could be quantized.*skipped by the recipe.*'fp32'"):
        quantize(nets, "mlp", skip=("*",))


def digest(program) -> str:
    found = hashlib.sha256(str(program.graph).encode())
    for name, tensor in sorted({**program.state_dict, **program.constants}.items()):
        found.update(name.encode() + tensor.detach().numpy().tobytes())
    return found.hexdigest()


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_the_same_run_twice_gives_the_same_program(nets, name):
    first, second = (quantize(nets, name, observer="histogram", bias_correction=True) for _ in range(2))
    assert digest(first.model.program) == digest(second.model.program)
    assert first.ranges == second.ranges
    assert first.model.identity == second.model.identity != nets[name][0].identity


@pytest.mark.parametrize("name", NETS)
def test_the_program_that_came_in_is_unchanged(nets, name):
    model, _ = nets[name]
    before = digest(model.program)
    quantize(nets, name, bias_correction=True, calibration_samples=8)
    assert digest(model.program) == before


def test_torch_is_left_as_it_was(nets):
    torch.manual_seed(7)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    quantize(nets, "mlp", bias_correction=True, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert (torch.get_num_threads(), torch.is_grad_enabled()) == (threads, True)


def test_the_identity_depends_on_the_configuration(nets):
    assert quantize(nets, "mlp").model.identity != quantize(nets, "mlp", observer="percentile").model.identity


def test_a_last_layer_smaller_than_its_grid_would_cost_stays_in_float(nets):
    target = make_target(smallest_linear=4096)
    result = quantize(nets, "mobilenet", target=target)
    head = next(d for d in result.decisions if d.op == "linear")
    assert (head.precision, head.reason) == ("float", "smaller than its grid would cost (320 multiplications)")
    assert all(d.precision == "int8" for d in result.decisions if d.op == "conv")
    (event,) = [e for e in result.events if "smaller" in e.message]
    assert event.kind == "note"
    asked = quantize(nets, "mobilenet", target=target, assign={head.name: "int8"})
    assert next(d for d in asked.decisions if d.op == "linear").precision == "int8"


def test_a_net_of_small_layers_is_quantized(nets):
    result = quantize(nets, "mlp", target=make_target(smallest_linear=4096))
    assert [d.precision for d in result.decisions] == ["int8"] * 3
