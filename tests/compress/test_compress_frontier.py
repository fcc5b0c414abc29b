"""Samples held between two layers are what a run from the start gives, whatever is held."""

from __future__ import annotations

import pytest
import torch
from compress_nets import dataset, export, make_config, make_context, make_target, samples, seeded
from torch import nn
from torch.nn import functional as F

from edgeopt.compress.adaround import adaround
from edgeopt.compress.evaluate import Quantized
from edgeopt.compress.frontier import Frontier
from edgeopt.compress.observers import WeightObserver
from edgeopt.compress.prepare import open_session, prepare
from edgeopt.recipes.schema import AdaRound


class Residual(nn.Module):
    """A branch that is added three layers later: its value lives across layers."""

    def __init__(self):
        super().__init__()
        self.stem, self.first, self.second = (
            nn.Conv2d(3, 8, 3, padding=1),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.Conv2d(8, 8, 1),
        )
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = F.relu(self.stem(x))
        y = F.relu(self.first(x))
        return self.head((x + self.second(y)).mean((2, 3)))


@pytest.fixture
def session():
    model = export(seeded(Residual, (3, 8, 8)), (3, 8, 8))
    data = dataset(samples(40, (3, 8, 8)))
    config = make_config(calibration_samples=40, batch_size=16)
    return open_session(model, config, make_context(data, make_target()))


def layers_of(prepared, session):
    wanted = [layer.node for layer in session.layers if layer.quantized and layer.op in ("conv", "linear")]
    return [node for node in prepared.graph.nodes if node.name in wanted]


@pytest.mark.parametrize("kept_bytes", [0, 3_000, 1 << 30])
def test_a_layers_inputs_are_those_of_a_run_from_the_start(session, kept_bytes):
    prepared, _ = prepare(session)
    frontier = Frontier(prepared, session.feed, 40, kept_bytes)
    nodes = layers_of(prepared, session)
    assert len(nodes) == 4
    for node in nodes:
        batches = list(session.feed.batches())
        found = list(frontier.inputs(node))
        assert len(found) == len(batches) == 3
        for (mine, theirs), (inputs, count) in zip(found, batches, strict=True):
            for got, quantize in ((mine, True), (theirs, False)):
                torch.testing.assert_close(
                    got, Quantized(prepared, quantize=quantize).until(node, inputs)[0][:count], rtol=0, atol=0
                )
        # other integers: what follows has to see them
        observer = prepared.get_submodule(str(node.args[1].target))
        assert isinstance(observer, WeightObserver)
        observer.rounded = torch.ones_like(
            observer.encode(frontier.reference.fetch_attr(str(node.args[1].args[0].target)))[0]
        )
        frontier.renew(node)


def test_no_more_samples_are_read_than_asked_for(session):
    prepared, _ = prepare(session)
    frontier = Frontier(prepared, session.feed, 20)
    assert [len(mine) for mine, _ in frontier.inputs(layers_of(prepared, session)[0])] == [16, 4]


def test_rounding_gives_the_same_integers_whatever_is_held(session, monkeypatch):
    prepared, _ = prepare(session)
    integers = []
    for kept in (0, 1 << 30):
        monkeypatch.setattr("edgeopt.compress.adaround.Frontier", lambda *given, kept=kept: Frontier(*given, kept))
        for node in layers_of(prepared, session):
            prepared.get_submodule(str(node.args[1].target)).rounded = None
        adaround(prepared, session.layers, session.feed, AdaRound(use=True, samples=40), lambda _: None)
        integers.append([prepared.get_submodule(str(n.args[1].target)).rounded for n in layers_of(prepared, session)])
    for held, started in zip(*integers, strict=True):
        torch.testing.assert_close(held, started, rtol=0, atol=0)
