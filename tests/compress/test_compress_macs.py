"""Multiply-accumulates are half of the FLOPs that torch counts while it runs the same net."""

from __future__ import annotations

import pytest
import torch
from compress_nets import NETS, export, seeded
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from edgeopt.compress.macs import multiplications
from edgeopt.compress.normalize import normalize


class Sequence(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.LSTM(6, 8, 2, bidirectional=True, batch_first=True)
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True)
        self.last = nn.RNN(16, 5, batch_first=True)

    def forward(self, x):
        y, _ = self.first(x)
        z, _ = self.attention(y, y, y, need_weights=False)
        return self.last(y + z)[0].mean(1)


class Causal(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(8, 24)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4).unbind(0)
        return nn.functional.scaled_dot_product_attention(q, k, v[..., :3], is_causal=True)


class Transposed(nn.Sequential):
    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 8, 3, 2, 1, groups=1),
            nn.ConvTranspose2d(8, 6, 4, 2, 1, groups=2),
            nn.Conv2d(6, 6, 3, dilation=2, groups=3),
        )


class Volume(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv3d(2, 4, 3, padding=1), nn.ConvTranspose3d(4, 2, 2, 2))


class Products(nn.Module):
    def __init__(self):
        super().__init__()
        self.matrix, self.bias = nn.Parameter(torch.randn(6, 5)), nn.Parameter(torch.randn(5))

    def forward(self, x):  # [N, 4, 6]
        y = torch.einsum("nij,jk,nik->nk", x, self.matrix, x @ self.matrix)
        z = torch.baddbmm(x @ self.matrix, x, self.matrix.expand(x.shape[0], -1, -1))
        return (
            torch.addmm(self.bias, y, torch.outer(self.bias, self.bias))
            + z.sum(1)
            + torch.mv(z[:, 0], self.bias)[:, None]
        )


MORE = {
    "sequence": (Sequence, (5, 6)),
    "causal": (Causal, (7, 8)),
    "transposed": (Transposed, (3, 12, 12)),
    "volume": (Volume, (2, 4, 6, 6)),
    "products": (Products, (4, 6)),
}
ALL = {**NETS, **MORE}


def counted(net, shape):
    """What torch counts for one sample, with every product as an op that it knows."""
    off, fast = torch.backends.mkldnn.flags(enabled=False), torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with off, sdpa_kernel(SDPBackend.MATH), torch.no_grad(), FlopCounterMode(display=False) as counter:
            net(torch.zeros(1, *shape))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    assert counter.get_total_flops() % 2 == 0
    return counter.get_total_flops() // 2


def make(name):
    kind, shape = ALL[name]
    if name in NETS:
        return seeded(kind, shape), shape
    torch.manual_seed(0)
    return kind().eval(), shape


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("batch", [None, 3], ids=["open", "batch of 3"])
def test_they_are_half_of_the_flops_of_one_sample(name, batch):
    net, shape = make(name)
    graph = export(net, shape, batch=batch).program.module(check_guards=False)
    found = multiplications(graph)
    not_counted = 5 if name == "products" else 0  # torch leaves out matrix times vector
    assert sum(found.values()) == counted(net, shape) + not_counted


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ["resnet", "vit", "conv1d", "transposed", "causal"])
def test_both_forms_of_export_and_the_normalized_graph_count_the_same(name):
    net, shape = make(name)
    program = export(net, shape).program
    wanted = counted(net, shape)
    assert sum(multiplications(program.run_decompositions().module(check_guards=False)).values()) == wanted
    assert sum(multiplications(normalize(program, split_attention=True)).values()) == wanted


def test_an_op_of_unknown_size_is_left_out():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv1d(2, 4, 3, padding=1), nn.Linear(4, 3)

        def forward(self, x):
            return self.head(self.conv(x).mean(-1))

    dims = ({0: torch.export.Dim("batch"), 2: torch.export.Dim("length")},)
    program = torch.export.export(Net().eval(), (torch.zeros(2, 2, 9),), dynamic_shapes=dims)
    assert multiplications(program.module(check_guards=False)) == {"linear": 12}
