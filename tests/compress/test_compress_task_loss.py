"""``loss: task`` and the score of the tasks that are no classification, against NumPy in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from compress_nets import dataset, samples
from training_nets import TRAINING, split

from edgeopt.compress.calibrate import Feed
from edgeopt.compress.score import Judge
from edgeopt.compress.training.batches import target_tensor
from edgeopt.compress.training.losses import find_loss
from edgeopt.core.errors import RecipeError
from edgeopt.recipes.training import Training

ALONE = Training.model_validate(TRAINING | {"distillation": None})


def value(task, outputs, targets):
    found = find_loss(ALONE, task=task)
    return float(found((torch.from_numpy(outputs).requires_grad_(),), target_tensor(targets), None).detach())


@pytest.mark.parametrize(("task", "shape"), [("regression", (5, 1)), ("regression", (5, 2)), ("embedding", (5, 8))])
def test_numbers_are_held_against_the_squared_error(task, shape):
    rng = np.random.default_rng(0)
    outputs, targets = rng.normal(size=shape).astype(np.float32), rng.normal(size=shape)
    targets = targets[:, 0] if shape[1] == 1 else targets
    wanted = np.mean((outputs.astype(np.float64) - targets.reshape(shape)) ** 2)
    assert value(task, outputs, targets) == pytest.approx(wanted, rel=1e-6)


def test_pixels_are_held_against_the_cross_entropy_of_those_that_count():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(2, 3, 4, 4)).astype(np.float32)
    masks = rng.integers(-1, 3, (2, 4, 4)).astype(np.int32)
    z = scores.astype(np.float64)
    logs = z - np.log(np.exp(z).sum(1, keepdims=True))
    picked = np.take_along_axis(logs, np.maximum(masks, 0)[:, None], axis=1)[:, 0]
    assert value("segmentation", scores, masks) == pytest.approx(-picked[masks >= 0].mean(), rel=1e-6)
    assert value("segmentation", scores, np.full_like(masks, -1)) == 0


def test_detection_has_no_loss_of_its_own():
    with pytest.raises(RecipeError, match=r"task detection has no loss of its own here.*package\.module:callable"):
        find_loss(ALONE, task="detection")
    assert find_loss(Training.model_validate(TRAINING), task="detection").task is None, "a teacher is enough"


def test_a_judge_with_a_loss_scores_by_it(nets):
    model, shape = nets["mlp"]
    x = samples(50, shape)
    feed = Feed.of(model, model.program, dataset(x).splits["calibration"], 50, 16)
    graph = model.program.module()
    outputs = graph(torch.from_numpy(x)).detach().numpy()
    y = np.random.default_rng(1).normal(size=outputs.shape)
    loss = find_loss(ALONE, task="regression").task
    judge = Judge.on(graph, feed, split("tune", x, y), 50, classification=False, loss=loss)
    score = judge.score(graph)
    assert score.loss == pytest.approx(np.mean((outputs.astype(np.float64) - y) ** 2), rel=1e-5)
    assert (score.divergence, score.accuracy, score.agreement) == (0, None, None)
