"""The fast float run computes what the plain graph does, for fewer passes over memory."""

from __future__ import annotations

import pytest
import torch
from compress_nets import MobileNet, ResNet, export, seeded
from torch import nn
from torch.fx import Interpreter
from torch.nn import functional as F
from torch.utils import _pytree as pytree
from torchao.quantization.pt2e.utils import _fuse_conv_bn_

from edgeopt.compress.float_run import FloatRunner
from edgeopt.compress.normalize import normalize

A = torch.ops.aten


class Padded(nn.Module):
    """Convolutions of every kind, behind pads that can and that cannot be folded, and a view of their values."""

    def __init__(self):
        super().__init__()
        self.plain = nn.Conv2d(3, 8, 3, bias=False)
        self.grouped = nn.Conv2d(8, 8, (3, 1), stride=(1, 2), padding=(0, 1), dilation=2, groups=4)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.head = nn.Linear(8 * 5 * 2, 4)

    def forward(self, x):
        y = F.relu6(self.plain(F.pad(x, (2, 2, 1, 1))))  # both sides alike: folded
        y = F.hardtanh(self.grouped(F.pad(y, (1, 1, 2, 2), value=0.5)), -0.5, 0.25)  # not with zeros
        z = self.depthwise(F.pad(y, (0, 1, 0, 1)))  # not alike
        z = torch.relu(z) + z  # the convolution's own value is wanted too
        return self.head(F.adaptive_avg_pool2d(z, (5, 2)).view(x.shape[0], -1)), y


def folded(model):
    graph = normalize(model.program, split_attention=False)
    _fuse_conv_bn_(graph)
    graph.recompile()
    return graph


@torch.no_grad()
def both(graph, x):
    runs = (runner.run(x, enable_io_processing=False) for runner in (Interpreter(graph), FloatRunner(graph)))
    return tuple(pytree.tree_leaves(run) for run in runs)


@pytest.mark.parametrize("net", [Padded, ResNet, MobileNet])
@pytest.mark.parametrize("batch", [1, 5])
def test_the_outputs_are_those_of_the_plain_graph(net, batch):
    graph = folded(export(seeded(net, (3, 16, 16)), (3, 16, 16)))
    x = torch.randn(batch, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    plain, fast = both(graph, x)
    assert len(plain) == len(fast)
    for expected, actual in zip(plain, fast, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_only_what_nobody_else_reads_is_done_by_the_convolution():
    graph = folded(export(seeded(Padded, (3, 16, 16)), (3, 16, 16)))
    run = []

    class Seen(FloatRunner):
        def call_function(self, target, args, kwargs):
            run.append(target)
            return super().call_function(target, args, kwargs)

    with torch.no_grad():
        Seen(graph).run(torch.zeros(2, 3, 16, 16), enable_io_processing=False)
    assert run.count(A.pad.default) == 2  # not zeros; not alike
    assert A.hardtanh.default not in run
    assert run.count(A.relu.default) == 1
    assert A.conv2d.default not in run


def test_a_weight_that_is_computed_from_the_input_is_computed_each_time():
    class Dynamic(nn.Module):
        def forward(self, x):
            return F.conv2d(x, x.mean((0, 2, 3)).reshape(1, 3, 1, 1)).flatten(1)

    graph = normalize(export(Dynamic().eval(), (3, 8, 8)).program, split_attention=False)
    runner = FloatRunner(graph)
    for seed in (1, 2):
        x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            (got,) = pytree.tree_leaves(runner.run(x, enable_io_processing=False))
        torch.testing.assert_close(got, Dynamic()(x))


def test_without_onednn_the_plain_graph_runs(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    graph = folded(export(seeded(MobileNet, (3, 16, 16)), (3, 16, 16)))
    plain, fast = both(graph, torch.randn(2, 3, 16, 16))
    assert torch.equal(plain[0], fast[0])
