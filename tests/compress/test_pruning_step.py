"""The prune step: what it makes, in one round and in several, and what it refuses."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from compress_nets import export, make_context
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


def test_the_result_tells_what_became_of_each_group_and_what_stays(case):
    model, context = case
    result = STEPS["prune"].run(model, prune(ratio=0.5), context)
    told, left, before = result.pruned, result.model.program.state_dict, model.program.state_dict
    assert (told.step, told.macs, told.macs_kept) == ("prune", result.stats["macs_before"], result.stats["macs_after"])
    assert any(row.kept < row.units for row in told.groups)
    for row in told.groups:
        weights = [f"{layer}.weight" for layer in row.layers]
        assert {len(before[name]) for name in weights} == {row.units}
        assert {len(left[name]) for name in weights} == {row.kept}
    assert {one.reason for one in told.pinned} == {"it is an output of the model"}


def test_groups_inside_a_branch_that_went_have_nothing_left():
    class Residual(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.head = torch.nn.Linear(6, 8), torch.nn.Linear(8, 3)
            self.first, self.second, self.third = (torch.nn.Linear(*size) for size in ((8, 12), (12, 10), (10, 8)))

        def forward(self, x):
            x = self.stem(x)
            return self.head(x + self.third(self.second(self.first(x).relu()).relu()))

    model = export(Residual().eval(), (6,))
    context = dataclasses.replace(make_context(np.zeros((1, 6), np.float32)), data=None)
    told = STEPS["prune"].run(model, prune(widths={"second": 0}), context).pruned
    assert {row.name: (row.units, row.kept) for row in told.groups} == {
        "stem +1": (8, 8),
        "first": (12, 0),
        "second": (10, 0),
    }
    assert told.macs_kept == 6 * 8 + 8 * 3


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
