"""Distillation: the teacher is the model before the recipe's first step; features compare across widths."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from compress_nets import Conv, export, make_context, seeded
from pydantic import ValidationError
from sparse_nets import make_distil
from torch import nn
from torch.nn import functional as F
from training_nets import make_finetune, make_qat, net_of, training_data

from edgeopt.compress.feature_points import feature_points, match_points
from edgeopt.compress.registry import STEPS
from edgeopt.compress.training.features import feature_distance
from edgeopt.compress.training.tape import Tape
from edgeopt.core.errors import RecipeError

SHAPE = (3, 8, 8)


class Net(nn.Module):
    """Two convolutions, whose width may differ, a hidden layer and a head."""

    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(Conv(3, width), Conv(width, width))
        self.hidden, self.head = nn.Linear(width, width), nn.Linear(width, 5)

    def forward(self, x):
        return self.head(torch.relu(self.hidden(self.body(x).mean((2, 3)))))


def net(width, seed=0):
    torch.manual_seed(seed)
    made = seeded(lambda: Net(width), SHAPE)
    return made, export(made, SHAPE, name=f"net{width}-{seed}")


def graph_of(model):
    return model.program.module(check_guards=False)


class TestTeacher:
    """A narrow student; the teacher has another width, another name, other scores."""

    def contexts(self):
        teacher, original = net(16)
        data = training_data(teacher, SHAPE)
        return original, make_context(data), make_context(data, original=original)

    @pytest.mark.parametrize("step", ["finetune", "distil", "qat"])
    def test_is_the_original_and_scores_are_held_against_it(self, step):
        _, alone, taught = self.contexts()
        student = net(8, seed=1)[1]
        training = {"distillation": {"weight": 1.0, "temperature": 2.0}, "epochs": 3, "learning_rate": 0.02}
        config = {"finetune": make_finetune, "distil": make_distil, "qat": make_qat}[step](training=training)
        (by_itself,), (by_original,) = (STEPS[step].run(student, config, c).training for c in (alone, taught))

        def divergence(section, epoch):
            return next(f.value for f in section.epochs[epoch].figures if f.name == "tune_divergence")

        assert divergence(by_itself, 0) < 0.003  # the student itself, at most rounded
        assert divergence(by_original, 0) > 0.03
        assert divergence(by_original, by_original.best_epoch) < 0.7 * divergence(by_original, 0)
        assert by_original.step == step

    def test_is_not_changed_and_the_students_graph_stays(self):
        original, _, taught = self.contexts()
        before = {name: value.clone() for name, value in original.program.state_dict.items()}
        student = net(8, seed=1)[1]
        result = STEPS["distil"].run(student, make_distil(features=["body.*"], feature_weight=2.0), taught)
        assert all(torch.equal(value, before[name]) for name, value in original.program.state_dict.items())
        targets = [[n.target for n in m.program.graph.nodes] for m in (student, result.model)]
        assert targets[0] == targets[1]
        assert result.stats["features"] == 6

    def test_is_the_model_itself_where_it_is_the_first_step(self):
        original, alone, taught = self.contexts()
        first, second = (STEPS["qat"].run(original, make_qat(), context) for context in (alone, taught))
        assert first.training == second.training


class TestFeatures:
    def test_are_named_as_layers_and_modules_are(self):
        points = feature_points(graph_of(net(8)[1]))
        assert {"body", "body.0", "body.1.0", "body.1.2", "hidden", "head"} <= points.keys()
        assert points["body"] is points["body.1"]
        assert points["body.1.2"].name.startswith("relu")

    def test_are_those_that_both_nets_have_each_place_once(self):
        student, teacher = graph_of(net(8)[1]), graph_of(net(16)[1])
        found = match_points(["body*", "hidden"], student, teacher)
        assert [point.name for point in found] == [
            "body.0.0",
            "body.0.1",
            "body.0",
            "body.1.0",
            "body.1.1",
            "body",
            "hidden",
        ]
        other = graph_of(net_of("mlp")[0])
        with pytest.raises(RecipeError, match=r"the distil step's features matches no layer.*has no such layers"):
            match_points(["head"], student, other)

    def test_a_pattern_that_matches_nothing_lists_the_nearest(self):
        model, module = net(8)[1], net(8)[0]
        config = make_distil(features=["hiden"], feature_weight=1.0)
        with pytest.raises(
            RecipeError, match=r"the distil step's features matches no layer\. Received: 'hiden'.*: hidden,"
        ):
            STEPS["distil"].run(model, config, make_context(training_data(module, SHAPE)))

    def test_are_told(self):
        teacher, original = net(16)
        context = make_context(training_data(teacher, SHAPE), original=original)
        result = STEPS["distil"].run(net(8, seed=1)[1], make_distil(features=["body.0"], feature_weight=1.0), context)
        assert "Features compared with the teacher's: body.0." in [event.message for event in result.events]

    def test_draw_the_students_towards_the_teachers(self):
        """With hardly any weight on the outputs, the features' distance falls, across widths."""
        teacher, original = net(16)
        context = make_context(training_data(teacher, SHAPE), original=original)
        student = net(8, seed=1)[1]
        training = {"epochs": 6, "learning_rate": 0.02, "distillation": {"weight": 1.0, "temperature": 1.0}}
        config = make_distil(features=["body", "hidden"], feature_weight=100.0, training=training)
        result = STEPS["distil"].run(student, config, context)
        losses = [epoch.loss for epoch in result.training[0].epochs[1:]]
        assert losses[-1] < 0.8 * losses[0]

    def test_of_a_tape_are_values_before_something_changed_them_in_place(self):
        graph = graph_of(net(8)[1])
        names = list({node.name: None for node in feature_points(graph).values()})
        x = torch.randn(2, *SHAPE)
        whole = Tape(graph, names)(x)
        assert len(whole) == 1 + len(names)
        assert torch.equal(whole[0], Tape(graph)(x)[0])
        assert any(bool((value < 0).any()) for value in whole[2:3])  # what a ReLU in place has not cut off
        batch_norm = next(n.name for n in graph.graph.nodes if "batch_norm" in n.name)
        (_, seen) = Tape(graph, [batch_norm])(x)
        assert bool((seen < 0).any())


class TestDistance:
    def test_of_one_shape_is_the_squared_error_over_the_teachers_power(self):
        a, b = torch.randn(4, 3, 5, 5), torch.randn(4, 3, 5, 5)
        expected = ((a - b).double() ** 2).sum() / (b.double() ** 2).sum()
        assert float(feature_distance(a, b)) == pytest.approx(float(expected), rel=1e-5)

    @pytest.mark.parametrize(
        ("mine", "theirs", "axis"),
        [((4, 3, 5, 6), (4, 8, 5, 6), 1), ((4, 7, 3), (4, 7, 8), 2), ((4, 3, 9), (4, 8, 9), 1)],
    )
    def test_of_other_widths_is_attention_transfer(self, mine, theirs, axis):
        rng = np.random.default_rng(0)
        a, b = rng.normal(size=mine), rng.normal(size=theirs)
        maps = [(x**2).mean(axis).reshape(4, -1) for x in (a, b)]
        maps = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in maps]
        expected = ((maps[0] - maps[1]) ** 2).sum(1).mean()
        assert float(feature_distance(torch.from_numpy(a), torch.from_numpy(b))) == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize(("mine", "theirs"), [((6, 3), (6, 8)), ((6, 3, 1, 1), (6, 8, 1, 1))])
    def test_of_other_widths_without_positions_is_the_likeness_of_samples(self, mine, theirs):
        rng = np.random.default_rng(0)
        a, b = rng.normal(size=mine), rng.normal(size=theirs)
        grams = [x.reshape(6, -1) @ x.reshape(6, -1).T for x in (a, b)]
        grams = [g / np.linalg.norm(g, axis=1, keepdims=True) for g in grams]
        expected = ((grams[0] - grams[1]) ** 2).sum() / 6
        assert float(feature_distance(torch.from_numpy(a), torch.from_numpy(b))) == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize("shape", [(4, 6, 5, 5), (4, 6), (4, 6, 5)])
    def test_is_nothing_where_channels_are_only_repeated_and_its_gradient_is_finite_at_zero(self, shape):
        teacher = torch.rand(shape)
        assert float(feature_distance(torch.cat([teacher, teacher], 1), teacher)) == pytest.approx(0, abs=1e-6)
        student = torch.zeros(4, 3, *shape[2:], requires_grad=True)
        feature_distance(student, teacher).backward()
        assert torch.isfinite(student.grad).all()

    @pytest.mark.parametrize(("mine", "theirs"), [((4, 3), (5, 3)), ((4, 3), (4, 3, 1)), ((4,), (4,))])
    def test_of_what_cannot_be_compared_is_refused(self, mine, theirs):
        with pytest.raises(RecipeError, match=r"cannot be compared with the teacher's.*steps\.distil\.features"):
            feature_distance(torch.zeros(mine), torch.zeros(theirs))


class TestConfig:
    def test_has_a_teacher(self):
        with pytest.raises(ValidationError, match=r"set training\.distillation"):
            make_distil(training={"distillation": None})

    @pytest.mark.parametrize("options", [{"features": ["a"]}, {"feature_weight": 1.0}])
    def test_features_and_their_weight_go_together(self, options):
        with pytest.raises(ValidationError, match="features and feature_weight go together"):
            make_distil(**options)


def becomes_nan(outputs, labels):
    becomes_nan.calls += 1
    return F.cross_entropy(outputs[0], labels) * (float("nan") if becomes_nan.calls > becomes_nan.after else 1.0)


class TestBadInput:
    def run(self, data=None, model=None, **options):
        module, own = net(8)
        data = data or training_data(module, SHAPE)
        return STEPS["distil"].run(model or own, make_distil(**options), make_context(data))

    def test_a_loss_that_becomes_nan_ends_it_at_a_named_step_with_the_best_so_far(self):
        becomes_nan.calls, becomes_nan.after = 0, 6  # four steps an epoch
        options = {"loss": "test_compress_distil:becomes_nan", "epochs": 3}
        result = self.run(training=options, features=["body"], feature_weight=1.0)
        assert len(result.training[0].epochs) == 2
        (warning,) = [event.message for event in result.events if event.kind == "warning"]
        assert warning.startswith("Training broke off: the loss is nan in epoch 2, step 3; the best epoch before that")
        assert all(torch.isfinite(value).all() for value in result.model.program.state_dict.values())

    def test_no_train_split_is_refused(self):
        data = training_data(net(8)[0], SHAPE)
        rest = {name: split for name, split in data.splits.items() if name != "train"}
        with pytest.raises(RecipeError, match="The step distil needs a train split to train on, and there is none"):
            self.run(data=dataclasses.replace(data, splits=rest))

    def test_an_onnx_model_is_refused(self):
        onnx = dataclasses.replace(net(8)[1], program=None, onnx_path=Path("net.onnx"))
        with pytest.raises(RecipeError, match=r"needs the PyTorch program.*leave the distil step out"):
            self.run(model=onnx)

    def test_without_data_the_check_refuses(self):
        with pytest.raises(RecipeError, match="distil needs data to train on"):
            STEPS["distil"].check(make_distil(), None, None, False)
        STEPS["distil"].check(make_distil(), None, None, True)
