"""A score on the tuning split is what NumPy in float64 computes from the outputs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from compress_nets import dataset, run, samples

from edgeopt.compress.calibrate import Feed
from edgeopt.compress.normalize import normalize
from edgeopt.compress.score import Judge


@pytest.fixture(scope="module")
def judged(nets):
    model, shape = nets["mlp"]
    x = samples(50, shape)
    feed = Feed.of(model, model.program, dataset(x).splits["calibration"], 50, 16)
    graph = normalize(model.program, split_attention=False)
    return run(model.program, x), Judge(graph, feed, classification=True), graph


def test_the_float_graph_against_itself_has_nothing_to_lose(judged):
    _, judge, graph = judged
    score = judge.score(graph)
    assert (score.divergence, score.sqnr_db, score.agreement, score.n) == (0.0, math.inf, 1.0, 50)


def test_a_shifted_output_has_the_divergence_and_sqnr_that_numpy_computes(judged):
    outputs, judge, graph = judged
    shift = np.linspace(-0.5, 0.5, outputs.shape[1]).astype(np.float32)
    score = judge.score(lambda inputs: graph(*inputs) + torch.from_numpy(shift))
    theirs, mine = outputs.astype(np.float64), (outputs + shift).astype(np.float64)

    def log_softmax(x):
        return x - np.log(np.exp(x - x.max(1, keepdims=True)).sum(1, keepdims=True)) - x.max(1, keepdims=True)

    p = log_softmax(theirs)
    assert score.divergence == pytest.approx((np.exp(p) * (p - log_softmax(mine))).sum(1).mean(), rel=1e-5)
    assert score.sqnr_db == pytest.approx(10 * np.log10((theirs**2).sum() / ((theirs - mine) ** 2).sum()), rel=1e-5)
    assert score.agreement == (theirs.argmax(1) == mine.argmax(1)).mean()
