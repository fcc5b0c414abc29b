"""The prune step: what it makes, in one round and in several, and what it refuses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from compress_nets import make_context
from training_nets import TRAINING, net_of, training_data

from edgeopt.compress.prune import PruneStep
from edgeopt.compress.registry import STEPS
from edgeopt.core.errors import RecipeError
from edgeopt.recipes.schema import Prune, Quantize, Recipe


def prune(**options):
    return Prune.model_validate({"importance": "l2"} | options)


def recipe(*steps):
    return Recipe(schema_version=1, name="p", steps=steps)


def context_with(net, model, **options):
    shape = model.inputs[0].shape[1:]
    return dataclasses.replace(
        make_context(np.zeros((1, *shape), np.float32)), data=training_data(net, shape), **options
    )


@pytest.fixture
def case():
    model, net, _ = net_of("mlp")
    return model, context_with(net, model)


def test_a_pruned_model_is_smaller_has_the_same_outputs_and_another_identity(case):
    model, context = case
    result = STEPS["prune"].run(model, prune(ratio=0.5), context)
    assert result.model.parameters < model.parameters
    assert result.stats["macs_after"] < result.stats["macs_before"]
    assert result.model.identity != model.identity
    assert result.model.outputs == model.outputs
    x = torch.from_numpy(context.data.splits["tune"].source.read([0, 1, 2]).inputs[0])
    assert result.model.program.module()(x).shape == model.program.module()(x).shape
    assert all(parameter.requires_grad for parameter in result.model.program.parameters())
    assert any("it is an output of the model" in event.message for event in result.events)


def test_names_of_layers_stay(case):
    model, context = case
    result = STEPS["prune"].run(model, prune(ratio=0.5), context)
    assert set(result.model.program.state_dict) == set(model.program.state_dict)


def test_taylor_reads_the_train_split_and_is_repeatable(case):
    model, context = case
    one, again = (STEPS["prune"].run(model, prune(importance="taylor", ratio=0.5), context) for _ in range(2))
    for name, value in one.model.program.state_dict.items():
        assert torch.equal(value, again.model.program.state_dict[name])


def test_rounds_end_where_one_round_does_and_train_between(case):
    model, context = case
    rounds = prune(ratio=0.5, scope="uniform", rounds=2, training=TRAINING | {"epochs": 1})
    several, one = (
        STEPS["prune"].run(model, config, context) for config in (rounds, prune(ratio=0.5, scope="uniform"))
    )
    assert several.stats["macs_after"] == one.stats["macs_after"]
    assert [section.step for section in several.training] == ["finetune"]
    assert one.training == ()


class TestRefusals:
    def test_pruning_after_quantization(self, local_target):
        quantize = Quantize(precision="int8", observer="minmax", bias_correction=False)
        with pytest.raises(RecipeError, match="prunes after it quantizes"):
            PruneStep.check(prune(ratio=0.5), recipe(quantize, prune(ratio=0.5)), local_target, has_data=True)

    def test_taylor_without_data(self, local_target):
        config = prune(importance="taylor", ratio=0.5)
        with pytest.raises(RecipeError, match=r"'taylor' needs data.*importance=l2"):
            PruneStep.check(config, recipe(config), local_target, has_data=False)

    def test_rounds_without_a_train_split(self, case):
        model, context = case
        splits = {name: split for name, split in context.data.splits.items() if name != "train"}
        context = dataclasses.replace(context, data=dataclasses.replace(context.data, splits=splits))
        with pytest.raises(RecipeError, match="finetune needs a train split"):
            STEPS["prune"].run(model, prune(ratio=0.5, rounds=2, training=TRAINING), context)

    def test_a_model_given_as_onnx(self, case):
        model, context = case
        with pytest.raises(RecipeError, match="Pruning needs the PyTorch program"):
            STEPS["prune"].run(dataclasses.replace(model, program=None), prune(ratio=0.5), context)


@pytest.fixture
def local_target(case):
    return case[1].target
