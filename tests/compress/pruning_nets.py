"""Nets that hold every way in which channels can hang together, and random ones."""

from __future__ import annotations

import random

import torch
from torch import nn
from torch.nn import functional as F


def exported(net, *shape, dynamic=True):
    """An exported program, in eval mode, with BatchNorm statistics that are no identity."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    shapes = ({0: torch.export.Dim("batch", min=1)},) if dynamic else None
    return torch.export.export(net.eval(), (torch.zeros(2, *shape),), dynamic_shapes=shapes)


class Attention(nn.Module):
    """Packed q, k, v; heads on the last axis; pre-norm; the product written out, or the fused op."""

    def __init__(self, dim=16, heads=4, *, fused=False):
        super().__init__()
        self.heads, self.fused = heads, fused
        self.stem, self.norm = nn.Linear(6, dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down, self.head = nn.Linear(dim, 24), nn.Linear(24, dim), nn.Linear(dim, 3)

    def forward(self, x):
        x = self.stem(x)
        tokens, dim = x.shape[1:]
        qkv = self.qkv(self.norm(x)).reshape(-1, tokens, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = torch.softmax(q @ k.transpose(-2, -1) * (dim // self.heads) ** -0.5, -1) @ v
        x = x + self.out(y.transpose(1, 2).reshape(-1, tokens, dim))
        return self.head(x + self.down(F.gelu(self.up(x))))


class Recurrent(nn.Module):
    def __init__(self, kind=nn.LSTM, **options):
        super().__init__()
        self.front = nn.Conv1d(6, 12, 3, padding=1)
        self.cell = kind(12, 8, 2, batch_first=True, **options)
        self.head = nn.Linear(16 if options.get("bidirectional") else 8, 3)

    def forward(self, x):
        return self.head(self.cell(F.relu(self.front(x)).transpose(1, 2))[0].mean(1))


class Shuffled(nn.Module):
    """Grouped convolutions, a channel shuffle, a gate of two halves, concatenation, a shared parameter, flattening."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.grouped, self.mixed = nn.Conv2d(16, 32, 3, padding=1, groups=4), nn.Conv2d(32, 32, 1, groups=2)
        self.side, self.scale = nn.Conv2d(16, 24, 1), nn.Parameter(torch.randn(24, 1, 1))
        self.up, self.each = nn.ConvTranspose2d(32, 12, 2, 2), nn.ConvTranspose2d(12, 12, 2, 2, groups=12)
        self.last, self.head = nn.Conv2d(12, 8, 3, padding=1), nn.Linear(24 * 16, 5)

    def forward(self, x):
        a = F.relu(self.first(x))
        y = self.grouped(a)
        n, c, h, w = y.shape
        y = self.mixed(y.view(n, 4, c // 4, h, w).transpose(1, 2).reshape(n, c, h, w))
        u, v = y.chunk(2, 1)
        y = self.last(self.each(self.up(torch.cat([u * torch.sigmoid(v), a], 1))))
        z = F.pixel_shuffle(F.silu(self.side(a)), 2).amax((2, 3))
        q = F.adaptive_avg_pool2d(self.side(a) * self.scale, 4).flatten(1)
        return torch.cat([self.head(q), y.mean((2, 3)), z[:, :3]], 1)


class Tied(nn.Module):
    """An embedding whose table is also the classifier's weight."""

    def __init__(self):
        super().__init__()
        self.table, self.mix = nn.Embedding(11, 8), nn.Linear(8, 8)

    def forward(self, x):
        return F.linear(F.relu(self.mix(self.table(x.long().clamp(0, 10)))), self.table.weight)


class Random(nn.Module):
    """A random chain of convolutions, residual additions, concatenations, splits, gates, norms and pools."""

    def __init__(self, seed):
        super().__init__()
        self.rng = random.Random(seed)
        self.layers, self.plan = nn.ModuleList(), []
        channels = self._conv(3, self.rng.choice((4, 6, 8, 12)))
        for _ in range(self.rng.randint(2, 6)):
            channels = self._grow(channels)
        self.pool = self.rng.choice(("mean", "flatten"))
        self.head = nn.Linear(channels * (4 if self.pool == "flatten" else 1), 4)

    def _conv(self, inputs, outputs, groups=1, kernel=3):
        layers = [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=self.rng.random() < 0.5)]
        if self.rng.random() < 0.7:
            layers.append(nn.BatchNorm2d(outputs))
        layers.append(
            self.rng.choice((nn.ReLU(), nn.SiLU(), nn.ReLU6(), nn.PReLU(outputs), nn.Sigmoid(), nn.Identity()))
        )
        self.layers.append(nn.Sequential(*layers))
        return outputs

    def _grow(self, channels):  # noqa: PLR0911  one return per kind
        kind = self.rng.choice(("conv", "residual", "concat", "depthwise", "grouped", "gate", "split", "transposed"))
        if kind in ("grouped", "gate", "split") and channels % 2:
            kind = "conv"
        self.plan.append(kind)
        if kind == "conv":
            return self._conv(channels, self.rng.choice((4, 6, 8, 10)))
        if kind == "residual":
            inner = self._conv(channels, self.rng.choice((4, 6)))
            return self._conv(inner, channels, kernel=1)
        if kind == "concat":
            return channels + self._conv(channels, self.rng.choice((2, 4, 6)))
        if kind == "depthwise":
            return self._conv(channels, channels * self.rng.choice((1, 2)), groups=channels)
        if kind == "grouped":
            return self._conv(channels, self.rng.choice((4, 8)), groups=2)
        if kind == "transposed":
            self.layers.append(nn.ConvTranspose2d(channels, channels + 1, 3, padding=1))
            return channels + 1
        if kind == "split":
            return self._conv(channels // 2, channels // 2) + channels // 2
        return self._conv(channels, channels) // 2  # gate

    def forward(self, x):
        layers = iter(self.layers)
        x = next(layers)(x)
        for kind in self.plan:
            if kind == "residual":
                inner, outer = next(layers), next(layers)
                x = x + outer(inner(x))
            elif kind == "concat":
                x = torch.cat([x, next(layers)(x)], 1)
            elif kind == "gate":
                a, b = next(layers)(x).chunk(2, 1)
                x = a * torch.tanh(b)
            elif kind == "split":
                a, b = x.split(x.shape[1] // 2, 1)
                x = torch.cat([next(layers)(a), b], 1)
            else:
                x = next(layers)(x)
        x = F.adaptive_avg_pool2d(x, 2)
        return self.head(x.flatten(1) if self.pool == "flatten" else x.mean((2, 3)))
