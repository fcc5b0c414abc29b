"""The nets of the quantization table: each a function without arguments, seeded by its caller."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - its name everywhere

__all__ = ["NETS"]


class Block(nn.Module):
    """ResNet's basic block: two 3×3 convolutions and a residual Add; a 1×1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = conv(inputs, outputs, stride=stride)
        self.second = conv(outputs, outputs, act=None)
        self.skip = nn.Identity() if stride == 1 else conv(inputs, outputs, kernel=1, stride=stride, act=None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] → [N, C', H / stride, W / stride]."""
        return F.relu(self.second(self.first(x)) + self.skip(x))


class Inverted(nn.Module):
    """MobileNetV2's block: expand, depthwise, project without activation; a residual Add where the shape stays."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        wide = inputs * expand
        self.layers = nn.Sequential(
            *([conv(inputs, wide, kernel=1, act=nn.ReLU6)] if expand > 1 else []),
            conv(wide, wide, stride=stride, groups=wide, act=nn.ReLU6),
            conv(wide, outputs, kernel=1, act=None),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, H, W] → [N, C', H / stride, W / stride]."""
        return x + self.layers(x) if self.residual else self.layers(x)


class Attention(nn.Module):
    """A pre-norm transformer block: multi-head attention and a GELU MLP on [N, T, D]."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, T, D] → [N, T, D]."""
        tokens, dim = x.shape[1:]
        qkv = self.qkv(self.norm1(x)).reshape(-1, tokens, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        weights = torch.softmax(q @ k.transpose(-2, -1) * (dim // self.heads) ** -0.5, -1)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(-1, tokens, dim))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class ViT(nn.Module):
    """A vision transformer with a class token: 4×4 patches of [N, 3, 32, 32], 4 blocks, 17 linear layers."""

    def __init__(self, dim: int = 64, depth: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, dim, 4, stride=4)
        self.token = nn.Parameter(torch.zeros(1, 1, dim))
        self.position = nn.Parameter(torch.randn(1, 65, dim) * 0.02)
        self.blocks = nn.Sequential(*[Attention(dim, heads) for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 3, 32, 32] → logits [N, 10]."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


class ConvGRU(nn.Module):
    """A convolution over time, a GRU, its mean over time, a linear layer."""

    def __init__(self, hidden: int = 64) -> None:
        super().__init__()
        self.front = conv1d(13, 48, 5)
        self.gru = nn.GRU(48, hidden, batch_first=True)
        self.head = nn.Linear(hidden, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 13, T] → logits [N, 10]."""
        states, _ = self.gru(self.front(x).transpose(1, 2))
        return self.head(states.mean(1))


def resnet20() -> nn.Module:
    """ResNet-20 for CIFAR (He et al. 2016, section 4.2; 1×1 shortcuts), one input channel: [N, 1, 28, 28]."""
    stages = [(16, 16, 1), (16, 32, 2), (32, 64, 2)]
    blocks = [Block(i if n == 0 else o, o, s if n == 0 else 1) for i, o, s in stages for n in range(3)]
    return nn.Sequential(conv(1, 16), *blocks, *pooled(64))


def mobilenetv2() -> nn.Module:
    """MobileNetV2-shaped (Sandler et al. 2018), ReLU6, small: [N, 1, 28, 28]."""
    shapes = [(16, 1, 1), (24, 2, 6), (24, 1, 6), (32, 2, 6), (32, 1, 6), (64, 1, 6), (64, 1, 6)]
    layers: list[nn.Module] = [conv(1, 16, act=nn.ReLU6)]
    inputs = 16
    for outputs, stride, expand in shapes:
        layers.append(Inverted(inputs, outputs, stride, expand))
        inputs = outputs
    return nn.Sequential(*layers, conv(inputs, 160, kernel=1, act=nn.ReLU6), *pooled(160))


def prelu() -> nn.Module:
    """Five 3×3 convolutions, each with a learned negative slope per channel: [N, 1, 28, 28]."""
    shapes = [(1, 32, 1), (32, 32, 2), (32, 64, 1), (64, 64, 2), (64, 64, 1)]
    return nn.Sequential(
        *[
            nn.Sequential(conv(i, o, stride=s, act=None), nn.PReLU(o))  # init 0.25
            for i, o, s in shapes
        ],
        *pooled(64),
    )


def longconv() -> nn.Module:
    """Three 1-D convolutions of kernel 65: [N, 13, 128]."""
    return nn.Sequential(
        conv1d(13, 32, 65),
        nn.MaxPool1d(2),
        conv1d(32, 48, 65),
        conv1d(48, 48, 65),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(48, 10),
    )


def cnn1d() -> nn.Module:
    """A plain 1-D CNN with pooling: [N, 13, 48]."""
    return nn.Sequential(
        conv1d(13, 48, 5),
        conv1d(48, 64, 5),
        nn.MaxPool1d(2),
        conv1d(64, 96, 3),
        nn.MaxPool1d(2),
        conv1d(96, 128, 3),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(128, 10),
    )


def mlp() -> nn.Module:
    """Three linear layers on flattened images: [N, 3, 32, 32]."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(3072, 1024),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(1024, 512),
        nn.ReLU(),
        nn.Linear(512, 10),
    )


def conv(
    inputs: int,
    outputs: int,
    kernel: int = 3,
    *,
    stride: int = 1,
    groups: int = 1,
    act: type[nn.Module] | None = nn.ReLU,
) -> nn.Sequential:
    """Convolution, batch norm, activation."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), *([] if act is None else [act()]))


def conv1d(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Convolution over time, batch norm, ReLU."""
    layer = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm1d(outputs), nn.ReLU())


def pooled(channels: int) -> tuple[nn.Module, ...]:
    """The classifier of an image net."""
    return nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10)


NETS = {
    "resnet20": resnet20,
    "mobilenetv2": mobilenetv2,
    "prelu": prelu,
    "longconv": longconv,
    "cnn1d": cnn1d,
    "gru": ConvGRU,
    "vit": ViT,
    "mlp": mlp,
}
